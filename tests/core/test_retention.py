"""How long finished events are kept, and that nothing unfinished is ever deleted."""

import pytest

from envoyou_core import ConfigurationError, Retention, RetentionReport, RetryPolicy, Webhooks
from envoyou_core.inbox import NewEvent, Status
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.observability import RetentionApplied
from envoyou_core.testing import sample_event

DAY = 86_400


@pytest.fixture
def make_webhooks(clock):
    def make(**settings):
        webhooks = Webhooks(
            secret="s",
            inbox=MemoryInbox(clock=clock),
            handoff="manual",
            retry=RetryPolicy(max_attempts=1),
            clock=clock,
            **settings,
        )
        webhooks.on("user.*", name="mirror", stale="skip")(lambda event: None)
        webhooks.on("api.*", name="fails")(lambda event: 1 / 0)
        return webhooks

    return make


def add(webhooks, id, type, **values):
    webhooks.inbox.add(NewEvent(sample_event(type, id=id, **values))).result(20)


def add_one_of_each(webhooks, clock):
    created = int(clock.now)
    add(webhooks, "processed", "user.created", created=created)
    add(webhooks, "ignored", "auth.login", created=created)
    add(webhooks, "dead", "api.quota_exceeded", created=created)
    webhooks.drain()
    add(webhooks, "waiting", "user.updated", created=created)
    assert {record.event.id: record.status for record in webhooks.inbox.list()} == {
        "processed": Status.PROCESSED,
        "ignored": Status.IGNORED,
        "dead": Status.DEAD,
        "waiting": Status.RECEIVED,
    }


def left(webhooks):
    return {record.event.id: record.event.data.object != {} for record in webhooks.inbox.list()}


def test_payloads_go_first_then_whole_events_then_the_marks(make_webhooks, clock):
    webhooks = make_webhooks()
    notices = []
    webhooks.subscribe(notices.append)
    add_one_of_each(webhooks, clock)
    all_of_them = {"processed": True, "ignored": True, "dead": True, "waiting": True}

    clock.advance(30 * DAY)
    assert webhooks.apply_retention() == RetentionReport()
    assert left(webhooks) == all_of_them
    assert [notice for notice in notices if isinstance(notice, RetentionApplied)] == []

    clock.advance(1)
    assert webhooks.apply_retention(dry_run=True) == RetentionReport(scrubbed=2)
    assert webhooks.apply_retention() == RetentionReport(scrubbed=2)
    assert left(webhooks) == all_of_them | {"processed": False, "ignored": False}

    clock.advance(60 * DAY)
    assert webhooks.apply_retention(dry_run=True) == RetentionReport(pruned=2)
    assert webhooks.apply_retention() == RetentionReport(pruned=2)
    assert left(webhooks) == {"dead": True, "waiting": True}

    clock.advance(275 * DAY)
    assert webhooks.apply_retention(dry_run=True) == RetentionReport(marks=1)
    assert webhooks.apply_retention() == RetentionReport(marks=1)
    assert left(webhooks) == {"dead": True, "waiting": True}
    assert [notice for notice in notices if isinstance(notice, RetentionApplied)] == [
        RetentionApplied("default", 2, 0, 0),
        RetentionApplied("default", 0, 2, 0),
        RetentionApplied("default", 0, 0, 1),
    ]


def test_what_comes_too_late_is_known_for_longer_than_the_event_is_kept(make_webhooks, clock):
    webhooks = make_webhooks()
    began = int(clock.now)
    add(webhooks, "deleted", "user.deleted", created=began)
    webhooks.drain()
    clock.advance(100 * DAY)
    webhooks.apply_retention()
    assert left(webhooks) == {}
    add(webhooks, "late", "user.updated", created=began - 1)
    webhooks.drain()
    assert webhooks.inbox.get("late").progress == {"mirror": "skipped"}


def test_what_goes_as_a_whole_is_not_scrubbed_before(make_webhooks, clock):
    webhooks = make_webhooks()
    add_one_of_each(webhooks, clock)
    clock.advance(100 * DAY)
    assert webhooks.apply_retention() == RetentionReport(scrubbed=0, pruned=2, marks=0)


def test_one_may_say_how_long(make_webhooks, clock):
    webhooks = make_webhooks(retention=Retention(payload_days=0.5, id_days=1, mark_days=1))
    add_one_of_each(webhooks, clock)
    clock.advance(0.6 * DAY)
    assert webhooks.apply_retention() == RetentionReport(scrubbed=2)
    clock.advance(0.5 * DAY)
    assert webhooks.apply_retention() == RetentionReport(pruned=2, marks=1)


def test_one_may_keep_all_for_ever(make_webhooks, clock):
    webhooks = make_webhooks(retention=None)
    add_one_of_each(webhooks, clock)
    clock.advance(10_000 * DAY)
    assert webhooks.apply_retention() == RetentionReport()
    assert all(left(webhooks).values())


def test_the_default_keeps_a_month_a_quarter_and_a_year():
    retention = Retention()
    assert (retention.payload_days, retention.id_days, retention.mark_days) == (30, 90, 365)
    assert retention.scrub_processed is False


@pytest.mark.parametrize(
    "days",
    [
        {"payload_days": 0},
        {"payload_days": -1},
        {"payload_days": 91},
        {"id_days": 29},
        {"id_days": 366},
        {"mark_days": 89},
        {"mark_days": float("inf")},
        {"mark_days": 1e9},
        {"payload_days": float("nan")},
        {"id_days": float("nan")},
        {"mark_days": float("nan")},
    ],
)
def test_days_that_make_no_sense_are_refused(days):
    with pytest.raises(ConfigurationError, match="payload_days, id_days and mark_days"):
        Retention(**days)
    assert Retention(payload_days=5, id_days=5, mark_days=5).id_days == 5
