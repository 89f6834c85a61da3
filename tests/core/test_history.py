"""The history of an event's attempts, and its stored form."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envoyou_core.inbox import Attempt, Failure, Settlement, Status
from envoyou_core.inbox.history import (
    MAX_HISTORY,
    decode_history,
    encode_history,
    with_attempt,
    with_crash,
    without_failures,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

_text = st.text(st.characters(codec="utf-8"))
_failures = st.builds(Failure, handler=_text, error=_text, traceback=_text)
_attempts = st.builds(
    Attempt,
    ended_at=st.datetimes(timezones=st.just(UTC)),
    status=st.none() | st.sampled_from([status.value for status in Status]),
    seconds=st.none() | st.floats(0, 1e9),
    failures=st.lists(_failures, max_size=3).map(tuple),
)
_histories = st.lists(_attempts, max_size=5).map(tuple)


@given(history=_histories)
def test_history_survives_a_round_trip(history):
    stored = encode_history(history)
    assert decode_history(stored) == history
    assert "\0" not in stored


@pytest.mark.parametrize("stored", [None, "", "[]"])
def test_text_that_was_never_stored_is_an_empty_history(stored):
    assert decode_history(stored) == ()


@given(history=_histories, seconds=st.floats(0, 1e6), failures=st.lists(_failures, max_size=2).map(tuple))
def test_an_attempt_is_added_at_the_end(history, seconds, failures):
    settlement = Settlement(Status.FAILED, 1, seconds=seconds, failures=failures)
    assert with_attempt(history, settlement, NOW) == (*history, Attempt(NOW, "failed", seconds, failures))
    assert with_crash(history, NOW) == (*history, Attempt(NOW, None))


def test_nothing_is_added_without_an_attempt():
    before = (Attempt(NOW, None),)
    assert with_attempt(before, Settlement(Status.RECEIVED, 0, retry_in=0.0), NOW) == before


def test_oldest_attempts_are_dropped():
    history = tuple(Attempt(NOW, "failed", float(number)) for number in range(MAX_HISTORY))
    longer = with_attempt(history, Settlement(Status.FAILED, 1, seconds=99.0), NOW)
    assert [attempt.seconds for attempt in longer] == [*map(float, range(1, MAX_HISTORY)), 99.0]
    assert [attempt.seconds for attempt in with_crash(longer, NOW)] == [
        *map(float, range(2, MAX_HISTORY)),
        99.0,
        None,
    ]


@given(history=_histories)
def test_without_failures_the_rest_stays(history):
    rest = without_failures(history)
    assert [(one.ended_at, one.status, one.seconds) for one in rest] == [
        (one.ended_at, one.status, one.seconds) for one in history
    ]
    assert all(one.failures == () for one in rest)


def test_when_an_attempt_began():
    assert Attempt(NOW, "failed", 2.5).began_at == NOW - timedelta(seconds=2.5)
    assert Attempt(NOW, None).began_at is None
