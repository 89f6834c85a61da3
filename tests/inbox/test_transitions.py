"""The rules by which an event changes in the inbox, as values."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from envoyou_core.inbox import (
    FINISHED,
    Added,
    Attempt,
    Claim,
    Failure,
    HandlerStatus,
    NewEvent,
    Settlement,
    Status,
    transitions,
)
from envoyou_core.inbox.handler_sets import HandlerSet
from envoyou_core.testing import sample_event

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EARLIER, LATER = NOW - timedelta(seconds=1), NOW + timedelta(seconds=1)
FAILURE = Failure("welcome", "ValueError: no route", "Traceback")


@dataclass(frozen=True)
class Ordered:
    key: int
    created: int = 1
    status: Status = Status.RECEIVED
    due_at: datetime | None = NOW
    type: str = "user.created"
    waits_for: str | None = None


KNOWN = HandlerSet.of([("bill", ["user.*"]), ("mail", ["auth.*"])])


def claim(**changes):
    return Claim(key=1, token="t", event=sample_event("user.created"), received_at=NOW, **changes)


def settlement(status=Status.PROCESSED, **changes):
    return Settlement(status, 3, seconds=0.5, **changes)


def test_a_new_event_is_due_at_once():
    accepted = transitions.accept(NewEvent(sample_event("user.created"), tenant="acme"), NOW)
    assert accepted["status"] is Status.RECEIVED
    assert (accepted["due_at"], accepted["received_at"], accepted["tenant"]) == (NOW, NOW, "acme")


def test_a_new_event_keeps_the_time_of_an_earlier_acceptance():
    accepted = transitions.accept(NewEvent(sample_event("user.created"), received_at=EARLIER), NOW)
    assert (accepted["due_at"], accepted["received_at"]) == (NOW, EARLIER)


@pytest.mark.parametrize(("status", "has_payload"), [*product(Status, (True, False))])
def test_a_redelivery_requeues_a_dead_event_that_has_a_payload(status, has_payload):
    rearmed = transitions.is_rearmed(status, has_payload=has_payload)
    assert rearmed is (status is Status.DEAD and has_payload)


@pytest.mark.parametrize(
    ("stored", "added"), [(b"a", Added.DUPLICATE), (b"b", Added.BODY_DIFFERS), (None, Added.DUPLICATE)]
)
def test_a_redelivery_differs_only_if_both_bodies_are_known(stored, added):
    assert transitions.compare_redelivery(b"a", stored) is added


def test_a_lease_ends_after_its_seconds():
    assert transitions.lease("t", 30, NOW) == {
        "status": Status.PROCESSING,
        "due_at": NOW + timedelta(seconds=30),
        "lease_token": "t",
    }


def test_a_crash_is_counted_and_recorded():
    before = (Attempt(EARLIER, "failed", 0.5),)
    changes = transitions.count_crash(claim(crashes=2, history=before), None, NOW)
    assert changes == {"crashes": 3, "history": (*before, Attempt(NOW, None)), "owed": {}}


def test_every_handler_of_the_process_that_died_may_have_begun():
    progress = {"welcome": HandlerStatus.DONE}
    died = HandlerSet.of([("welcome", ["*"]), ("bill", ["user.*"]), ("mail", ["auth.*"])])
    changes = transitions.count_crash(claim(owed={"crm": False, "bill": False}, progress=progress), died, NOW)
    assert changes["owed"] == {"crm": False, "bill": True}
    # What an unreadable event owes is left as it is stored.
    assert "owed" not in transitions.count_crash(claim(unreadable="progress"), died, NOW)


@pytest.mark.parametrize("status", Status)
def test_only_a_finished_event_has_a_settling_time(status):
    settled = transitions.settle(claim(), settlement(status), NOW)
    assert settled["settled_at"] == (NOW if status in FINISHED else None)
    assert (settled["status"], settled["attempts"], settled["lease_token"]) == (status, 3, None)


@pytest.mark.parametrize(("retry_in", "due_at"), [(None, None), (0, NOW), (1, LATER)])
def test_a_settled_event_is_due_after_the_delay(retry_in, due_at):
    assert transitions.settle(claim(), settlement(Status.FAILED, retry_in=retry_in), NOW)["due_at"] == due_at


def test_an_attempt_is_appended_to_the_history():
    failed = settlement(Status.FAILED, error="no route", failures=(FAILURE,))
    settled = transitions.settle(claim(history=(Attempt(EARLIER, None),)), failed, NOW)
    assert settled["history"] == (Attempt(EARLIER, None), Attempt(NOW, "failed", 0.5, (FAILURE,)))
    assert settled["last_error"] == "no route"


def test_the_progress_of_an_unreadable_event_stays():
    progress = {"welcome": HandlerStatus.DONE}
    assert transitions.settle(claim(), settlement(progress=progress), NOW)["progress"] == progress
    assert "progress" not in transitions.settle(claim(unreadable="the body"), settlement(progress=progress), NOW)


@pytest.mark.parametrize(("status", "scrub", "erase_requested"), [*product(Status, (True, False), (True, False))])
def test_a_payload_is_deleted_for_retention_or_when_an_erased_event_is_finished(status, scrub, erase_requested):
    deletes = transitions.deletes_payload(settlement(status, scrub=scrub), erase_requested=erase_requested)
    assert deletes is (scrub or (erase_requested and status in FINISHED))


def test_a_requeued_event_keeps_the_handlers_that_succeeded():
    progress = {
        "welcome": HandlerStatus.DONE,
        "bill": HandlerStatus.GIVEN_UP,
        "mail": HandlerStatus.SKIPPED,
    }
    assert transitions.requeue(progress, {"crm": False}, NOW) == {
        "status": Status.RECEIVED,
        "attempts": 0,
        "crashes": 0,
        "due_at": NOW,
        "settled_at": None,
        "progress": {"welcome": HandlerStatus.DONE},
        "owed": {"crm": False, "bill": True},
        "waits_for": None,
        "waits_since": None,
    }


def test_a_requeued_event_keeps_progress_that_is_unreadable():
    assert {"progress", "owed"}.isdisjoint(transitions.requeue(None, {}, NOW))
    assert "owed" not in transitions.requeue({}, None, NOW)


def test_a_scrubbed_event_keeps_its_object_and_its_attempts_without_errors():
    event = sample_event("user.created")
    scrubbed = transitions.scrub(event, (Attempt(EARLIER, "failed", 0.5, (FAILURE,)),), NOW)
    assert scrubbed["history"] == (Attempt(EARLIER, "failed", 0.5),)
    assert (scrubbed["object_key"], scrubbed["last_error"], scrubbed["scrubbed_at"]) == (event.object_id, None, NOW)
    assert event.object_id.encode() not in scrubbed["body"]


@pytest.mark.parametrize(("status", "state"), [*product(Status, (None, *HandlerStatus))])
def test_an_event_had_an_effect_if_it_or_one_of_its_handlers_succeeded(status, state):
    progress = {} if state is None else {"welcome": state}
    assert transitions.had_effect(status, progress) is (status is Status.PROCESSED or state is HandlerStatus.DONE)


def test_a_watermark_is_the_newest_creation_time_of_an_object():
    applied = [
        ("b", "user_1", 5),
        ("", "user_1", 2),
        ("", "user_1", 3),
        ("", "user_1", 1),
        ("", "", 9),
        ("", None, 9),
        ("", "user_2", "unreadable"),
    ]
    assert list(transitions.watermarks(applied).items()) == [(("", "user_1"), 3), (("b", "user_1"), 5)]


@pytest.mark.parametrize(
    ("unfinished", "key"),
    [
        ([], None),
        ([Ordered(2)], 2),
        ([Ordered(2), Ordered(1)], 1),
        ([Ordered(1, created=2), Ordered(2, created=1)], 2),
        ([Ordered(1, status=Status.FAILED, due_at=LATER), Ordered(2)], 1),
        ([Ordered(1), Ordered(2, status=Status.PROCESSING, due_at=LATER)], None),
        ([Ordered(1), Ordered(2, status=Status.PROCESSING, due_at=NOW)], 1),
        ([Ordered(1, status=Status.PROCESSING, due_at=EARLIER), Ordered(2)], 1),
        ([Ordered(1, due_at=LATER, waits_for="crm"), Ordered(2)], 2),
        ([Ordered(1, due_at=LATER, waits_for="bill"), Ordered(2)], 1),
        ([Ordered(1, due_at=LATER, waits_for="mail"), Ordered(2)], 2),
        ([Ordered(1, due_at=NOW, waits_for="crm"), Ordered(2)], 1),
        ([Ordered(1, due_at=LATER, waits_for="crm")], None),
    ],
    ids=[
        "none",
        "one",
        "by arrival",
        "by creation",
        "a retry",
        "a lease",
        "an expired lease",
        "a crash of the first",
        "the first waits for another process",
        "the first waits for this process",
        "the first waits for a handler that is for other types here",
        "the first has waited long enough",
        "all wait for another process",
    ],
)
def test_events_of_one_object_are_claimed_in_order(unfinished, key):
    assert transitions.next_in_order(unfinished, NOW, KNOWN) == key
