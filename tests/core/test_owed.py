"""What an event owes, for any handlers, progress and processes."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envoyou_core.inbox import HandlerSet, HandlerStatus, Process, ProcessKind
from envoyou_core.inbox.owed import (
    OwedElsewhere,
    awaited_handlers,
    encode_owed,
    next_wait,
    owed_of,
    owed_to_others,
    wait_key,
    with_begun,
    with_crashed,
)
from envoyou_core.inbox.processes import LIVE_FOR, held_handlers
from envoyou_core.inbox.transitions import requeue

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TYPE = "user.created"
NAMES = st.sampled_from(["a", "b", "c", "d"])
PATTERNS = st.sampled_from([["user.created"], ["user.*"], ["*"], ["auth.*"], ["auth.login", "user.created"]])

owed = st.dictionaries(NAMES, st.booleans())
progress = st.dictionaries(NAMES, st.sampled_from(HandlerStatus))
sets = st.dictionaries(NAMES, PATTERNS).map(lambda handlers: HandlerSet.of(handlers.items()))
held = st.dictionaries(NAMES, st.floats(0.001, 90_000))
processes = st.lists(
    st.builds(
        lambda kind, handlers, age: Process("p", kind, handlers, "web-1", 1, "1.0", NOW, NOW - timedelta(seconds=age)),
        st.sampled_from(ProcessKind),
        sets,
        st.integers(-5, 100_000),
    ),
    max_size=4,
)


@given(owed, st.sets(NAMES), progress, sets | st.none())
def test_what_has_ended_is_never_owed_and_what_has_begun_stays(owed, names, progress, crashed):
    for merged in (with_begun(owed, names, progress), with_crashed(owed, TYPE, progress, crashed)):
        assert merged.keys().isdisjoint(progress)
        assert {name for name, begun in owed.items() if begun} - progress.keys() <= {
            name for name, begun in merged.items() if begun
        }
    assert with_begun(owed, names, progress).keys() == (owed.keys() | names) - progress.keys()
    expected = set() if crashed is None else set(crashed.matching(TYPE))
    assert with_crashed(owed, TYPE, progress, crashed) == with_begun(owed, expected, progress)


@given(owed, progress, sets | st.none(), st.sets(NAMES))
def test_another_process_owes_exactly_what_is_unfinished_and_unknown_here(owed, progress, accepted, known):
    others = owed_to_others(owed, TYPE, progress, accepted, known)
    all_owed = owed.keys() | (set() if accepted is None else set(accepted.matching(TYPE)))
    assert others.keys() == all_owed - known - progress.keys()
    # Acceptance alone begins nothing, and does not take back that a handler has begun.
    assert all(begun is owed.get(name, False) for name, begun in others.items())


@given(owed, held, held)
def test_more_live_processes_never_drop_a_handler(owed, held, more):
    few = OwedElsewhere(owed, held, NOW).binding
    many = OwedElsewhere(owed, held | more, NOW).binding
    assert {name for name, begun in owed.items() if begun} <= few.keys() <= many.keys() <= owed.keys()
    assert few.keys() == {name for name, begun in owed.items() if begun or name in held}


@given(processes, processes)
def test_the_handlers_of_live_processes_for_the_type_bind_and_no_others(some, more):
    live = held_handlers(some, TYPE, NOW)
    assert live.keys() == {
        name
        for process in some
        if (NOW - process.seen_at).total_seconds() < LIVE_FOR[process.kind]
        for name in process.handlers.matching(TYPE)
    }
    with_more = held_handlers([*some, *more], TYPE, NOW)
    assert all(with_more[name] >= seconds > 0 for name, seconds in live.items())


@given(owed.filter(bool), held, st.none() | st.integers(0, 2000), st.floats(0, 2000), st.none() | NAMES)
def test_an_event_waits_for_a_binding_handler_and_no_longer_than_it_may(owed, held, waited, longest, awaited):
    elsewhere = OwedElsewhere(owed, held, NOW)
    if not elsewhere.binding:
        return
    since = None if waited is None else NOW - timedelta(seconds=waited)
    wait = next_wait(elsewhere, since, longest, awaited=awaited)
    left = (since or NOW) + timedelta(seconds=longest) - NOW
    if left <= timedelta(0):
        assert wait is None
        return
    assert wait.handler in elsewhere.binding
    assert wait.since == (since or NOW)
    assert 0 < wait.seconds <= left.total_seconds()
    # It is looked at again once a handler that has not begun may not be live any more.
    if not owed[wait.handler]:
        assert wait.seconds <= held[wait.handler] + 1


@given(owed.filter(bool), held)
def test_each_binding_handler_has_its_turn(owed, held):
    elsewhere = OwedElsewhere(owed, held, NOW)
    turns, awaited = [], None
    for _ in elsewhere.binding:
        wait = next_wait(elsewhere, NOW, 86_400.0, awaited=awaited)
        turns.append(wait.handler)
        awaited = wait_key(wait.handler)
    assert sorted(turns) == sorted(elsewhere.binding)
    # First those that a live process takes at once.
    assert [name in held for name in turns] == sorted((name in held for name in turns), reverse=True)


@given(owed)
def test_what_is_owed_is_read_as_it_was_stored(owed):
    assert owed_of(encode_owed(owed)) == owed


@pytest.mark.parametrize("stored", ["[]", '{"a": 1}', "{", "null", 7, "[" * 100_000])
def test_anything_else_is_refused(stored):
    with pytest.raises(ValueError, match="owed must be a JSON object of booleans"):
        owed_of(stored)


@given(sets)
def test_a_set_is_read_as_it_was_stored_and_its_handlers_are_awaited(handlers):
    decoded = HandlerSet.decode(handlers.encode())
    assert (decoded, decoded.handlers) == (handlers, handlers.handlers)
    assert {key for key, _ in awaited_handlers(handlers)} == {wait_key(name) for name, _ in handlers.handlers}


@given(progress, owed, st.sets(NAMES))
def test_a_requeued_event_owes_what_it_owed_but_for_what_is_dropped(progress, owed, dropped):
    done = {name for name, status in progress.items() if status in {HandlerStatus.DONE, HandlerStatus.DROPPED}}
    given_up = {name for name, status in progress.items() if status is HandlerStatus.GIVEN_UP}
    all_owed = (owed.keys() | given_up) - done
    changes = requeue(progress, owed, NOW, dropped)
    if dropped and not dropped & all_owed:
        assert changes == {}
        return
    assert changes["owed"].keys() == all_owed - dropped
    assert changes["owed"].keys().isdisjoint(changes["progress"])
    assert changes["progress"].keys() == done | (dropped & all_owed)
