"""Tests of the actions in the admin and their permissions."""

import html
import re
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
from envoyou_django.models import ProcessedEvent
from envoyou_django.runtime import DjangoWebhooks

pytestmark = pytest.mark.django_db

LIST = "admin:envoyou_django_processedevent_changelist"
CHANGE = "admin:envoyou_django_processedevent_change"
APPLY = "admin:envoyou_django_processedevent_apply"
RUN_NOW = "admin:envoyou_django_processedevent_run_now"


@pytest.fixture(autouse=True)
def unhurried(monkeypatch):
    """An action is carried out in one step, however busy the machine is."""
    monkeypatch.setattr("envoyou_django.admin.bulk.STEP", 60.0)


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


def confirm(client, action, *rows):
    """Send the form of the confirmation, also if the page would not offer it."""
    fields = {"action": action, "_selected_action": [row.pk for row in rows]}
    progress = {"start": 0, "until": max(row.pk for row in rows), "after": 0, "done": 0}
    return client.post(reverse(APPLY), fields | progress, follow=True).content.decode()


def submit(client, page, **changes):
    """Send the form of an action's page as a browser does; return the next page, and whether it is the list again."""
    form = re.search(r'<form id="envoyou-step".*?</form>', page, flags=re.DOTALL)[0]
    fields = {}
    for name, value in re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form):
        fields.setdefault(name, []).append(value)
    url = html.unescape(re.search(r'action="([^"]*)"', form)[1])
    response = client.post(url, fields | changes, follow=True)
    return response.content.decode(), bool(response.redirect_chain)


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


def test_run_now_as_an_action(admin_client, events, woken):
    page = act(admin_client, "run_now", *events.values())
    assert "Run events now?" in page
    assert "1 event will be changed:" in page
    page, _ = submit(admin_client, page)
    assert "1 event is due now." in page
    record = webhooks.inbox.get("evt_failed")
    assert (record.status, record.attempts) == (Status.FAILED, 3)
    assert record.next_attempt_at <= datetime.now(UTC)
    assert log() == {("evt_failed (user.created)", "Made due.")}


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


@pytest.fixture
def many(events):
    """120 dead events of one type."""
    for number in range(120):
        webhooks.inbox.add(NewEvent(sample_event("auth.login", id=f"evt_{number}")))
    rows = ProcessedEvent.objects.filter(type="auth.login")
    rows.update(status="dead", due_at=None)
    return rows


def select_many(client, action="requeue"):
    selected = {"action": action, "select_across": "1", "_selected_action": ["1"]}
    return client.post(f"{reverse(LIST)}?type=auth.login", selected).content.decode()


def test_requeue_all_events_that_match_a_filter(admin_client, events, many):
    page = select_many(admin_client)
    assert "120 events will be changed:" in page
    assert "and 100 more" in page
    assert 'name="_selected_action"' not in page
    page, is_list = submit(admin_client, page)
    assert is_list
    assert "120 events were requeued." in page
    assert statuses()["evt_dead"] == "dead"


def test_an_action_on_many_events_goes_on_in_steps(admin_client, many, monkeypatch, woken):
    monkeypatch.setattr("envoyou_django.inbox.bulk.BATCH", 50)
    monkeypatch.setattr("envoyou_django.admin.bulk.STEP", 0.0)
    page = select_many(admin_client)
    seen = []
    is_list = False
    while not is_list:
        page, is_list = submit(admin_client, page)
        # The history never says more than what is done.
        seen.append((many.filter(status="received").count(), LogEntry.objects.count()))
        if len(seen) == 1:
            assert "50 events are done." in page
            assert "progress.js" in page
            # One that fails again, and one that arrives now: neither is changed by the action.
            many.filter(pk=many.first().pk).update(status="dead", due_at=None)
            webhooks.inbox.add(NewEvent(sample_event("auth.login", id="evt_later"))).result()
            many.filter(event_id="evt_later").update(status="dead", due_at=None)
    assert seen == [(50, 50), (99, 100), (119, 120), (119, 120)]
    assert "120 events were requeued." in page
    assert {"evt_later", "evt_0"} <= {id for id, status in statuses().items() if status == "dead"}
    assert len(woken) == 4


def test_an_interrupted_action_keeps_what_is_done_and_its_history(admin_client, many, monkeypatch):
    monkeypatch.setattr("envoyou_django.inbox.bulk.BATCH", 50)
    log_actions = LogEntry.objects.log_actions

    def interrupt(*arguments, **keywords):
        if LogEntry.objects.exists():
            raise Interrupted
        return log_actions(*arguments, **keywords)

    monkeypatch.setattr(LogEntry.objects, "log_actions", interrupt)
    page = select_many(admin_client)
    with pytest.raises(Interrupted):
        submit(admin_client, page)
    assert LogEntry.objects.count() == 50
    requeued = set(many.filter(status="received").values_list("pk", flat=True))
    assert {int(entry.object_id) for entry in LogEntry.objects.all()} == requeued


class Interrupted(BaseException):
    """Like the exception of a server timeout."""


@pytest.mark.django_db(transaction=True)
def test_each_batch_is_committed_although_requests_are_atomic(admin_client, many, monkeypatch):
    assert connection.settings_dict["ATOMIC_REQUESTS"]
    in_transaction = []
    monkeypatch.setattr(DjangoWebhooks, "wake", lambda _: in_transaction.append(connection.in_atomic_block))
    page = select_many(admin_client)
    submit(admin_client, page)
    assert in_transaction == [False]
    assert not many.filter(status="dead").exists()


@pytest.mark.parametrize(
    ("action", "seconds"), [("requeue", None), ("mark_dead", None), ("run_now", 60)], ids=lambda value: str(value)
)
def test_a_batch_takes_few_statements(admin_client, many, action, seconds, django_assert_max_num_queries):
    if action != "requeue":
        many.update(status="failed", due_at=datetime.now(UTC) + timedelta(seconds=60))
    page = select_many(admin_client, action)
    with django_assert_max_num_queries(40):
        page, _ = submit(admin_client, page)
    assert "120 events " in page


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"until": "x"}, 400),
        ({"select_across": "0", "_selected_action": "x"}, 400),
        ({"action": "delete_selected"}, 403),
        ({"action": "nothing"}, 403),
    ],
)
def test_a_form_that_no_page_has_sent(admin_client, many, changes, status):
    fields = {"action": "requeue", "select_across": "1", "start": 0, "until": 10**6, "after": 0, "done": 0}
    assert admin_client.post(reverse(APPLY), fields | changes).status_code == status
    assert admin_client.post(f"{reverse(APPLY)}?day=x", fields | changes).status_code in {400, 403}
    assert not many.exclude(status="dead").exists()


def test_an_action_requires_post_a_csrf_token_and_a_login(admin_client, admin_user, many, client):
    assert admin_client.get(reverse(APPLY)).status_code == 405
    fields = {"action": "requeue", "select_across": "1", "start": 0, "until": 10**6, "after": 0, "done": 0}
    assert client.post(reverse(APPLY), fields).status_code == 302
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(admin_user)
    assert strict.post(reverse(APPLY), fields).status_code == 403
    assert not many.exclude(status="dead").exists()


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
    made_due = ("evt_failed (user.created)", "Made due.")
    page = client.get(reverse(CHANGE, args=[events["failed"].pk])).content.decode()
    assert {button for button in ("Run now", "Requeue…", "Mark dead…") if button in page} == may
    assert run_now(client, events["failed"]).status_code == (200 if "Run now" in may else 403)
    confirm(client, "requeue", events["dead"])
    assert statuses()["evt_dead"] == ("received" if "Requeue…" in may else "dead")
    confirm(client, "run_now", events["failed"])
    assert log() == ({("evt_dead (user.created)", "Requeued."), made_due} if "Run now" in may else set())
    confirm(client, "mark_dead", events["received"])
    assert statuses()["evt_received"] == ("dead" if "Mark dead…" in may else "received")


def test_actions_require_the_view_permission(staff, events):
    client = staff("requeue_processedevent")
    assert client.get(reverse(LIST)).status_code == 403
    assert run_now(client, events["failed"]).status_code == 403
    assert client.post(reverse(LIST), {"action": "requeue", "_selected_action": "1"}).status_code == 403
    assert "403 Forbidden" in confirm(client, "requeue", events["dead"])
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
    assert f'action="{here}apply/"' in page
    submit(admin_client, page, _selected_action=events["dead"].pk)
    assert statuses()["evt_dead"] == "received"
