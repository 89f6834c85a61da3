"""The admin, driven through the test client."""

import json
import re

import pytest
from django.contrib.auth.models import Permission, User
from django.test import override_settings
from django.urls import reverse
from django.utils import timezone

from envoyou_core.inbox import Entry, Failure, Settlement, Status
from envoyou_core.testing import sample_event
from envoyou_django import webhooks
from envoyou_django.models import ProcessedEvent
from tests.django.conftest import SECRET

pytestmark = pytest.mark.django_db

LIST = "admin:envoyou_django_processedevent_changelist"
CHANGE = "admin:envoyou_django_processedevent_change"


@pytest.fixture
def dead():
    webhooks.inbox.add(
        Entry(sample_event(id="evt_dead", object={"id": "usr_dead", "name": "<b>Zoë</b> \ud83d"}))
    ).result()
    (claim,) = webhooks.inbox.claim(1, 60)
    failure = Failure("members.welcome", "OSError: no mail today", "Traceback:\n  send(<script>)\nOSError: no mail")
    settlement = Settlement(Status.DEAD, 3, error="OSError: no mail today", seconds=1.5, failures=(failure,))
    webhooks.inbox.settle(claim, settlement)
    return ProcessedEvent.objects.get()


@pytest.fixture
def viewer(client):
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_processedevent"))
    client.force_login(user)
    return client


def act(client, action, *rows, **values):
    selected = {"action": action, "_selected_action": [row.pk for row in rows], **values}
    return client.post(reverse(LIST), selected, follow=True).content.decode()


def requeue(client, *rows):
    return act(client, "requeue", *rows, confirmed="yes")


def shown(moment):
    return f"{timezone.localtime(moment):%Y-%m-%d %H:%M:%S}"


def test_the_list(admin_client, dead):
    webhooks.inbox.add(Entry(sample_event("auth.login", id="evt_other")))
    page = admin_client.get(reverse(LIST)).content.decode()
    assert page.index("evt_other") < page.index("evt_dead")
    assert "no mail today" in page


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("status__exact=dead", True),
        ("status__exact=processed", False),
        ("type=user.created", True),
        ("type=auth.login", False),
        ("q=evt_dead", True),
        ("q=evt_alive", False),
        ("q=usr_dead", True),
        ("received_at__gte=2020-01-01", True),
        ("received_at__gte=2999-01-01", False),
    ],
)
@pytest.mark.parametrize("use_tz", [True, False])
def test_filters_and_search(admin_client, dead, settings, use_tz, query, found):
    settings.USE_TZ = use_tz
    page = admin_client.get(f"{reverse(LIST)}?{query}")
    assert page.status_code == 200
    assert ("no mail today" in page.content.decode()) is found


def test_one_event(admin_client, dead):
    page = admin_client.get(reverse(CHANGE, args=[dead.pk])).content.decode()
    assert "&lt;b&gt;Zoë&lt;/b&gt; \\ud83d" in page
    assert 'name="_save"' not in page
    assert "Delete" not in page


def test_what_became_of_each_attempt(admin_client, dead, clock):
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET, "CLOCK": clock}):
        webhooks.inbox.requeue("evt_dead")
        webhooks.inbox.claim(1, 60)
        clock.advance(60)
        webhooks.inbox.claim(1, 60)
    page = admin_client.get(reverse(CHANGE, args=[dead.pk])).content.decode()
    (attempt,) = webhooks.inbox.get("evt_dead").history[:1]
    first, second = re.findall(r'<tr class="envoyou-attempt">.*?</tr>', page, flags=re.DOTALL)
    assert shown(attempt.began_at) in first
    assert shown(attempt.ended_at) in first
    assert "members.welcome</strong>: OSError: no mail today" in first
    assert "send(&lt;script&gt;)" in first
    assert "<script>)" not in page
    assert shown(clock.moment()) in second
    assert "its process had died" in second


def test_an_event_that_was_not_tried_has_no_history(admin_client):
    webhooks.inbox.add(Entry(sample_event(id="evt_new")))
    page = admin_client.get(reverse(CHANGE, args=[ProcessedEvent.objects.get().pk]))
    assert page.status_code == 200
    assert "its process had died" not in page.content.decode()


def test_what_it_is_about_and_when_its_payload_went(admin_client, dead):
    assert "usr_dead" in admin_client.get(reverse(CHANGE, args=[dead.pk])).content.decode()
    webhooks.inbox.erase("usr_dead")
    page = admin_client.get(reverse(CHANGE, args=[dead.pk])).content.decode()
    assert page.count("usr_dead") == 1
    assert "Zoë" not in page
    assert "no mail today" not in page
    assert "0 events were requeued." in requeue(admin_client, dead)


def test_nothing_can_be_added_changed_or_deleted(admin_client, dead):
    assert admin_client.get(reverse("admin:envoyou_django_processedevent_add")).status_code == 403
    assert admin_client.post(reverse(CHANGE, args=[dead.pk]), {"status": "processed"}).status_code == 403
    assert admin_client.post(reverse("admin:envoyou_django_processedevent_delete", args=[dead.pk])).status_code == 403
    dead.refresh_from_db()
    assert dead.status == "dead"


def test_requeuing(admin_client, dead):
    assert "1 event was requeued." in requeue(admin_client, dead)
    record = webhooks.inbox.get("evt_dead")
    assert (record.status, record.attempts) == (Status.RECEIVED, 0)
    assert "0 events were requeued." in requeue(admin_client, dead)


def test_who_may_only_look_cannot_requeue(viewer, dead):
    assert viewer.get(reverse(LIST)).status_code == 200
    requeue(viewer, dead)
    assert webhooks.inbox.get("evt_dead").status is Status.DEAD
    viewer.logout()
    user = User.objects.get(username="viewer")
    user.user_permissions.add(Permission.objects.get(codename="requeue_processedevent"))
    viewer.force_login(user)
    assert "1 event was requeued." in requeue(viewer, dead)


def test_an_event_is_told_by_its_id_and_type(dead):
    assert str(dead) == "evt_dead (user.created)"
    assert json.loads(bytes(dead.body))["id"] == dead.event.id == "evt_dead"
