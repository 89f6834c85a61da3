"""Tests of the list of events in the admin: its filters, its summary and its bounds."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse

from envoyou_core.inbox import NewEvent, Settlement, Status
from envoyou_core.testing import sample_event
from envoyou_django import webhooks
from envoyou_django.models import PausedSubject, ProcessedEvent
from tests.django.conftest import SECRET

pytestmark = pytest.mark.django_db

LIST = "admin:envoyou_django_processedevent_changelist"
CHANGE = "admin:envoyou_django_processedevent_change"


@pytest.fixture(autouse=True)
def time(clock, settings):
    clock.now = datetime(2026, 7, 15, 12, tzinfo=UTC).timestamp()
    settings.ENVOYOU = {"WEBHOOK_SECRET": SECRET, "CLOCK": clock}
    return clock


def add(id, type="user.created", **values):
    webhooks.inbox.add(NewEvent(sample_event(type, id=id))).result()
    rows = ProcessedEvent.objects.filter(event_id=id)
    rows.update(**values)
    return rows.get()


def listed(page):
    return set(re.findall(r'/change/[^"]*">(evt_\w+)</a>', page))


def page_of(client, query=""):
    return client.get(f"{reverse(LIST)}?{query}").content.decode()


def test_overdue_events(admin_client, time):
    add("evt_new")
    add("evt_late", due_at=time.moment() - timedelta(minutes=5))
    add("evt_frozen", status="processing", due_at=time.moment() - timedelta(minutes=2))
    add("evt_later", status="failed", due_at=time.moment() + timedelta(hours=1))
    add("evt_paused", "auth.login", due_at=time.moment() - timedelta(hours=1))
    webhooks.pause(type="auth.*")
    page = page_of(admin_client)
    # In New York.
    assert "2 events are overdue</a>, the first since 2026-07-15 07:55:00" in page
    assert listed(page_of(admin_client, "attention=overdue")) == {"evt_late", "evt_frozen"}


def test_what_is_paused(admin_client):
    for number, type in enumerate(("auth.login", "user.updated", "user.created")):
        add(f"evt_{number}", type)
    add("evt_done", "auth.login", status="processed", due_at=None)
    assert "Paused</a> <bdi>" not in page_of(admin_client)
    assert listed(page_of(admin_client, "attention=paused")) == set()
    webhooks.on("user.updated", name="mail")(lambda event: None)
    webhooks.pause(type="auth.*")
    webhooks.pause(handler="mail")
    PausedSubject.objects.create(name="billing", subject="type:user.created")
    page = page_of(admin_client)
    assert re.findall(r'attention=paused">Paused</a> <bdi>(.*?)</bdi>', page) == [
        "billing: type:user.created",
        "default: handler:mail",
        "default: type:auth.*",
    ]
    assert listed(page_of(admin_client, "attention=paused")) == {"evt_0", "evt_1"}


def test_what_waits_for_a_handler(admin_client):
    add("evt_1", waits_for="members.welcome")
    add("evt_2", status="failed", waits_for="members.welcome")
    add("evt_3", status="processed", waits_for="members.welcome")
    add("evt_4")
    assert re.search(r"2 events wait for the handler</a> <bdi>members.welcome</bdi>", page_of(admin_client))
    assert listed(page_of(admin_client, "attention=waiting")) == {"evt_1", "evt_2"}


@pytest.mark.parametrize(
    ("query", "events"),
    [
        ("received_from=2026-07-02", {"evt_2", "evt_3"}),
        ("received_until=2026-07-02", {"evt_1", "evt_2"}),
        ("received_from=2026-07-02&received_until=2026-07-02", {"evt_2"}),
        ("received_from=&received_until=", {"evt_1", "evt_2", "evt_3"}),
        ("received_from=2026-07-03&received_until=2026-07-01", set()),
    ],
)
def test_events_received_between_two_days(admin_client, query, events):
    # In New York, each of the days ends at four o'clock of the next.
    for day in (1, 2, 3):
        add(f"evt_{day}", received_at=datetime(2026, 7, day + 1, 3, 59, tzinfo=UTC))
    assert listed(page_of(admin_client, query)) == events


def test_the_form_for_days_keeps_the_other_filters(admin_client):
    add("evt_1")
    page = page_of(admin_client, "status__exact=received&q=evt_1&received_from=2026-07-02&p=1")
    form = re.search(r'<form method="get" class="envoyou-range">.*?</form>', page, flags=re.DOTALL)[0]
    fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form))
    assert fields == {
        "status__exact": "received",
        "q": "evt_1",
        "received_from": "2026-07-02",
        "received_until": "",
    }


@pytest.mark.parametrize("query", ["received_from=soon", "received_until=9999-12-31", "received_from=0001-01-01"])
def test_an_invalid_day_is_ignored(admin_client, settings, query):
    settings.TIME_ZONE = "Asia/Tokyo"
    page = admin_client.get(f"{reverse(LIST)}?{query}", follow=True)
    assert page.redirect_chain == [(f"{reverse(LIST)}?e=1", 302)]


def test_the_filter_by_type_has_the_types_there_are(admin_client, monkeypatch):
    for number, type in enumerate(("user.created", "auth.login", "user.created", "auth.Login")):
        add(f"evt_{number}", type)
    assert sorted(re.findall(r'href="\?type=([^"]*)"', page_of(admin_client))) == [
        "auth.Login",
        "auth.login",
        "user.created",
    ]
    monkeypatch.setattr("envoyou_django.admin.lists.MAX_VALUES", 2)
    assert len(re.findall(r'href="\?type=([^"]*)"', page_of(admin_client))) == 2


def test_the_list_and_its_count_are_bounded(admin_client, monkeypatch):
    for number in range(4):
        add(f"evt_{number}")
    assert "There may be more than" not in page_of(admin_client)
    monkeypatch.setattr("envoyou_django.admin.lists.COUNTED", 3)
    page = page_of(admin_client)
    assert "There may be more than 3 events." in page
    assert "Show counts" not in page


def test_a_confirmation_counts_up_to_a_bound(admin_client, monkeypatch):
    for number in range(4):
        add(f"evt_{number}", status="dead", due_at=None)
    add("evt_processed", status="processed", due_at=None)
    monkeypatch.setattr("envoyou_django.admin.confirmation.COUNTED", 3)
    selected = {"action": "requeue", "select_across": "1", "_selected_action": "1"}
    page = admin_client.post(reverse(LIST), selected).content.decode()
    assert "More than 3 events will be changed:" in page
    assert "will not be changed" not in page


def test_the_object_is_a_link_to_its_events(admin_client):
    event = add("evt_1", object_key="usr 1&2")
    page = admin_client.get(reverse(CHANGE, args=[event.pk])).content.decode()
    (link,) = re.findall(r'<a href="([^"]*)"><bdi>usr 1&amp;2</bdi></a>', page)
    assert link == f"{reverse(LIST)}?q=usr+1%262"
    assert listed(admin_client.get(link).content.decode()) == {"evt_1"}
    ProcessedEvent.objects.update(object_key="")
    assert f"{reverse(LIST)}?q=" not in admin_client.get(reverse(CHANGE, args=[event.pk])).content.decode()


def test_all_times_are_in_one_time_zone_and_name_it(admin_client, time):
    webhooks.inbox.add(NewEvent(sample_event(id="evt_1", created=int(time.now) - 60))).result()
    (claim,) = webhooks.inbox.claim(1, 60)
    webhooks.inbox.settle(claim, Settlement(Status.FAILED, 1, retry_in=60, seconds=1.0))
    event = ProcessedEvent.objects.get()
    page = admin_client.get(reverse(CHANGE, args=[event.pk])).content.decode()
    for moment in ("07:59:00 EDT", "08:00:00 EDT", "08:01:00 EDT", "07:59:59 EDT"):
        assert f"2026-07-15 {moment}" in page
    assert "UTC" not in page
    page = page_of(admin_client)
    assert "2026-07-15 08:01:00" in page
    assert "All times are in the time zone America/New_York." in page


def test_code_is_written_from_left_to_right(admin_client, settings):
    settings.LANGUAGE_CODE = "ar"
    event = add("evt_1")
    page = admin_client.get(reverse(CHANGE, args=[event.pk])).content.decode()
    assert 'dir="rtl"' in page
    assert '<pre class="envoyou-payload" dir="ltr"' in page


def test_there_are_only_permissions_that_have_an_effect():
    names = Permission.objects.filter(content_type__app_label="envoyou_django").values_list("codename", flat=True)
    assert set(names) == {
        "view_processedevent",
        "requeue_processedevent",
        "mark_dead_processedevent",
        "view_rejecteddelivery",
        "delete_rejecteddelivery",
        "retry_rejecteddelivery",
    }
