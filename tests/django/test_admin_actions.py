"""Tests of the actions in the admin and their permissions."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.urls import reverse

from envoyou_core.inbox import NewEvent, Settlement, Status
from envoyou_core.testing import sample_event
from envoyou_django import webhooks
from envoyou_django.models import ProcessedEvent, ProcessedEventQuerySet
from envoyou_django.runtime import DjangoWebhooks

pytestmark = pytest.mark.django_db

LIST = "admin:envoyou_django_processedevent_changelist"
CHANGE = "admin:envoyou_django_processedevent_change"
RUN_NOW = "admin:envoyou_django_processedevent_run_now"


@pytest.fixture(autouse=True)
def woken(monkeypatch):
    """The calls that wake a worker."""
    calls = []
    monkeypatch.setattr(DjangoWebhooks, "wake", lambda self: calls.append(self))
    return calls


@pytest.fixture
def events():
    """One event of each status except `processing`, by status."""
    rows = {}
    for status in (Status.DEAD, Status.FAILED, Status.IGNORED, Status.PROCESSED):
        webhooks.inbox.add(NewEvent(sample_event(id=f"evt_{status}"))).result()
        (claim,) = webhooks.inbox.claim(1, 60)
        error = "OSError: no mail" if status in {Status.DEAD, Status.FAILED} else None
        retry_in = 3600 if status is Status.FAILED else None
        webhooks.inbox.settle(claim, Settlement(status, 3, error=error, retry_in=retry_in))
    webhooks.inbox.add(NewEvent(sample_event(id="evt_received"))).result()
    for row in ProcessedEvent.objects.all():
        rows[row.status] = row
    return rows


@pytest.fixture
def hold():
    """Claim one more event."""
    webhooks.inbox.add(NewEvent(sample_event(id="evt_processing"))).result()
    claims = webhooks.inbox.claim(9, 60)
    return next(claim for claim in claims if claim.event.id == "evt_processing")


@pytest.fixture
def staff(client):
    """Log a user with the given permissions in; return the client."""

    def log_in(*codenames):
        user, _ = User.objects.get_or_create(username="staff", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(user)
        return client

    return log_in


def act(client, action, *rows, **values):
    selected = {"action": action, "_selected_action": [row.pk for row in rows], **values}
    return client.post(reverse(LIST), selected, follow=True).content.decode()


def confirm(client, action, *rows, **values):
    return act(client, action, *rows, confirmed="yes", **values)


def run_now(client, row):
    return client.post(reverse(RUN_NOW, args=[row.pk]), follow=True)


def statuses():
    return dict(ProcessedEvent.objects.values_list("event_id", "status"))


def log():
    return set(LogEntry.objects.values_list("object_repr", "change_message"))


def test_requeue_asks_for_confirmation(admin_client, events, woken):
    before = statuses()
    page = act(admin_client, "requeue", *events.values())
    assert "Requeue events?" in page
    assert "3 events will be changed:" in page
    assert "2 selected events will not be changed." in page
    assert page.count("evt_dead (user.created)") == 1
    assert "evt_processed (user.created)" not in page
    assert (statuses(), woken, log()) == (before, [], set())


def test_requeue_after_confirmation(admin_client, events, woken):
    assert "3 events were requeued." in confirm(admin_client, "requeue", *events.values())
    record = webhooks.inbox.get("evt_dead")
    assert (record.status, record.attempts) == (Status.RECEIVED, 0)
    assert statuses()["evt_processed"] == "processed"
    assert len(woken) == 1
    assert log() == {(f"evt_{status} (user.created)", "Requeued.") for status in ("dead", "failed", "ignored")}
    assert "0 events were requeued." in confirm(admin_client, "requeue", events["dead"])


def test_an_interrupted_action_is_in_the_history(admin_client, events, monkeypatch):
    class Interrupted(BaseException):
        """Like the exception of a server timeout."""

    def interrupt(rows, now=None):
        raise Interrupted

    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", False)
    monkeypatch.setattr(ProcessedEventQuerySet, "requeue", interrupt)
    with pytest.raises(Interrupted):
        confirm(admin_client, "requeue", events["dead"])
    assert log() == {("evt_dead (user.created)", "Requeued.")}


def test_mark_dead_asks_for_confirmation(admin_client, events, woken):
    before = statuses()
    page = act(admin_client, "mark_dead", *events.values())
    assert "Mark events dead?" in page
    assert "2 events will be changed:" in page
    assert "evt_received (user.created)" in page
    assert (statuses(), woken, log()) == (before, [], set())


def test_mark_dead_after_confirmation(admin_client, events, woken):
    assert "2 events were marked dead." in confirm(admin_client, "mark_dead", *events.values())
    assert {id for id, status in statuses().items() if status == "dead"} == {"evt_dead", "evt_failed", "evt_received"}
    # Events that waited for them can be claimed now.
    assert len(woken) == 1
    assert log() == {(f"evt_{status} (user.created)", "Marked dead.") for status in ("failed", "received")}


def test_an_event_with_a_running_attempt_is_not_marked_dead(admin_client, hold):
    row = ProcessedEvent.objects.get(event_id="evt_processing")
    assert "None of the selected events" in act(admin_client, "mark_dead", row)
    assert "0 events were marked dead." in confirm(admin_client, "mark_dead", row)
    assert webhooks.inbox.settle(hold, Settlement(Status.PROCESSED, 1))


def test_there_is_nothing_to_confirm_without_eligible_events(admin_client, events):
    page = act(admin_client, "requeue", events["processed"])
    assert "None of the selected events" in page
    assert "Yes, requeue" not in page


def test_an_event_without_payload_cannot_be_requeued(admin_client, events):
    webhooks.inbox.erase("user_123")
    assert "None of the selected events" in act(admin_client, "requeue", events["dead"])
    assert "0 events were requeued." in confirm(admin_client, "requeue", events["dead"])
    assert "Requeue…" not in admin_client.get(reverse(CHANGE, args=[events["dead"].pk])).content.decode()


def test_requeue_all_events_that_match_a_filter(admin_client, events):
    for number in range(120):
        webhooks.inbox.add(NewEvent(sample_event("auth.login", id=f"evt_{number}")))
    ProcessedEvent.objects.filter(type="auth.login").update(status="dead", due_at=None)
    selected = {"action": "requeue", "select_across": "1", "_selected_action": [events["dead"].pk]}
    page = admin_client.post(f"{reverse(LIST)}?type=auth.login", selected).content.decode()
    assert "120 events will be changed:" in page
    assert "and 100 more" in page
    assert page.count('name="_selected_action"') == 1
    assert 'name="select_across" value="1"' in page
    page = admin_client.post(f"{reverse(LIST)}?type=auth.login", {**selected, "confirmed": "yes"}, follow=True)
    assert "120 events were requeued." in page.content.decode()
    assert statuses()["evt_dead"] == "dead"


def test_run_now_makes_a_waiting_event_due(admin_client, events, woken):
    page = run_now(admin_client, events["failed"])
    assert page.redirect_chain == [(reverse(CHANGE, args=[events["failed"].pk]), 302)]
    assert "The event is due now." in page.content.decode()
    assert len(woken) == 1
    record = webhooks.inbox.get("evt_failed")
    assert (record.status, record.attempts) == (Status.FAILED, 3)
    assert record.next_attempt_at <= datetime.now(UTC)
    assert log() == {("evt_failed (user.created)", "Made due.")}


@pytest.mark.parametrize("status", ["dead", "ignored", "processed"])
def test_run_now_rejects_an_event_that_is_not_waiting(admin_client, events, woken, status):
    page = run_now(admin_client, events[status])
    assert "The event is not waiting for an attempt." in page.content.decode()
    assert (statuses()[f"evt_{status}"], woken, log()) == (status, [], set())


def test_run_now_requires_post_a_csrf_token_and_a_login(admin_client, admin_user, events, client):
    url = reverse(RUN_NOW, args=[events["failed"].pk])
    assert admin_client.get(url).status_code == 405
    assert client.post(url).status_code == 302
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(admin_user)
    assert strict.post(url).status_code == 403
    assert admin_client.post(reverse(RUN_NOW, args=["99999"])).status_code == 404
    assert admin_client.post(reverse(RUN_NOW, args=["evt"])).status_code == 404
    assert webhooks.inbox.get("evt_failed").next_attempt_at > datetime.now(UTC) + timedelta(minutes=30)


@pytest.mark.parametrize(
    ("permissions", "may"),
    [
        ({"view_processedevent"}, set()),
        ({"view_processedevent", "requeue_processedevent"}, {"Run now", "Requeue…"}),
        ({"view_processedevent", "mark_dead_processedevent"}, {"Mark dead…"}),
    ],
)
def test_permissions(staff, events, permissions, may):
    client = staff(*permissions)
    page = client.get(reverse(CHANGE, args=[events["failed"].pk])).content.decode()
    assert {button for button in ("Run now", "Requeue…", "Mark dead…") if button in page} == may
    assert run_now(client, events["failed"]).status_code == (200 if "Run now" in may else 403)
    confirm(client, "requeue", events["dead"])
    assert statuses()["evt_dead"] == ("received" if "Requeue…" in may else "dead")
    confirm(client, "mark_dead", events["received"])
    assert statuses()["evt_received"] == ("dead" if "Mark dead…" in may else "received")


def test_actions_require_the_view_permission(staff, events):
    client = staff("requeue_processedevent")
    assert client.get(reverse(LIST)).status_code == 403
    assert run_now(client, events["failed"]).status_code == 403
    assert act(client, "requeue", events["dead"], confirmed="yes").startswith("\n<!doctype html>")
    assert statuses()["evt_dead"] == "dead"


@pytest.mark.parametrize(
    ("status", "may"),
    [
        ("received", {"Run now", "Mark dead…"}),
        ("failed", {"Run now", "Requeue…", "Mark dead…"}),
        ("dead", {"Requeue…"}),
        ("ignored", {"Requeue…"}),
        ("processed", set()),
    ],
)
def test_buttons_depend_on_the_status(admin_client, events, status, may):
    page = admin_client.get(reverse(CHANGE, args=[events[status].pk])).content.decode()
    assert {button for button in ("Run now", "Requeue…", "Mark dead…") if button in page} == may


@pytest.mark.urls("tests.django.own_site_urls")
def test_a_custom_admin_site_links_to_itself(admin_client, events):
    here = "/operations/envoyou_django/processedevent/"
    event = f"{here}{events['failed'].pk}/"
    page = admin_client.get(f"{event}change/").content.decode()
    assert f'action="{event}run-now/"' in page
    assert f'action="{here}"' in page
    assert admin_client.post(f"{event}run-now/").url == f"{event}change/"
    selected = {"action": "requeue", "_selected_action": [events["dead"].pk]}
    page = admin_client.post(here, selected).content.decode()
    assert "Requeue events?" in page
    assert 'href="/admin/' not in page
    assert admin_client.post(here, {**selected, "confirmed": "yes"}).url == here
    assert statuses()["evt_dead"] == "received"
