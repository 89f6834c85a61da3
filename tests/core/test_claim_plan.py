"""Which due events may be claimed now: no limit is exceeded, and no group of events starves."""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envoyou_core import ConfigurationError, Handlers
from envoyou_core.patterns import covers, matches_any
from envoyou_core.worker.claim_plan import (
    MAX_BLOCKAGE,
    RoundRobin,
    ordered_patterns,
    paused_patterns,
    plan_claims,
    subject_of,
)
from envoyou_core.worker.pauses import CACHE_SECONDS, Pauses

TYPES = ["user.created", "user.updated", "user.key.made", "auth.login", "other"]
PATTERNS = ["*", "user.*", "user.key.*", "user.created", "user.updated", "auth.*", "auth.login", "other"]


@dataclass(frozen=True)
class Event:
    type: str


@dataclass(frozen=True)
class Claim:
    """A stand-in for a claim, with only what the plan reads."""

    event: Event


def handlers_of(*described):
    """Handlers named a, b, c and so on, each with its patterns and its limit."""
    handlers = Handlers()
    for name, (patterns, concurrency) in zip("abcdefgh", described, strict=False):
        handlers.on(*patterns, name=name, concurrency=concurrency)(lambda event: None)
    return tuple(handlers)


class Monotonic:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def claim_from(due, handlers, in_flight=(), free=100, paused=(), turns=None, asked=None):
    """Claim from the event types `due`, as an inbox would, and remove the claimed ones."""
    taken = []
    to_claim = plan_claims(handlers, paused, in_flight, free, turns or RoundRobin())
    try:
        request = next(to_claim)
        while True:
            if asked is not None:
                asked.append(request)
            include, exclude = request.filter.include, request.filter.exclude
            fitting = [
                type
                for type in due
                if (include is None or matches_any(include, type)) and not matches_any(exclude, type)
            ]
            found = [Claim(Event(type)) for type in fitting[: request.limit]]
            for claim in found:
                due.remove(claim.event.type)
            taken += found
            request = to_claim.send(found)
    except StopIteration:
        return taken


def counted(claims):
    return Counter(claim.event.type for claim in claims)


def in_flight(*types):
    return [Claim(Event(type)) for type in types]


def test_without_limits_and_pauses_one_claim_takes_all():
    asked = []
    taken = claim_from(list(TYPES), handlers_of((["*"], None), (["user.*"], None)), free=3, asked=asked)
    assert len(taken) == 3
    [request] = asked
    assert (request.limit, request.filter.include, request.filter.exclude, request.filter.ordered) == (3, None, (), ())


def test_nothing_is_claimed_if_nothing_is_free():
    asked = []
    assert claim_from(list(TYPES), handlers_of((["*"], None), (["user.*"], 1)), free=0, asked=asked) == []
    assert asked == []


def test_limited_handler_gets_no_more_than_its_limit_and_others_proceed():
    due = ["user.created"] * 5 + ["auth.login"] * 5
    handlers = handlers_of((["user.created"], 2), (["*"], None))
    assert counted(claim_from(due, handlers)) == {"user.created": 2, "auth.login": 5}
    assert counted(claim_from(due, handlers, in_flight("user.created", "auth.login"))) == {"user.created": 1}
    assert claim_from(due, handlers, in_flight("user.created", "user.created")) == []


def test_no_more_than_is_free_is_taken_over_all_claims_together():
    due = ["user.created"] * 5 + ["auth.login"] * 5
    assert len(claim_from(due, handlers_of((["user.*"], 3), (["auth.*"], 3)), free=4)) == 4


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        ([(["user.*"], 3), (["user.created"], 1)], {"user.created": 1, "user.updated": 2}),
        ([(["user.*"], 1), (["user.created"], 3)], {"user.created": 1}),
        ([(["*"], 2), (["user.created"], 1)], {"user.created": 1, "user.updated": 1}),
        ([(["user.*", "user.created"], 2)], {"user.created": 2}),
    ],
)
def test_event_counts_against_each_limited_handler_that_matches(described, expected):
    due = ["user.created"] * 9 + ["user.updated"] * 9
    # Whatever the order in which they are asked: the sums are what the limits allow.
    taken = counted(claim_from(due, handlers_of(*described)))
    assert sum(taken.values()) == sum(expected.values())
    for name, (patterns, limit) in zip("ab", described, strict=False):
        assert sum(n for type, n in taken.items() if matches_any(patterns, type)) <= limit, name


limited = st.tuples(
    st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3, unique=True), st.none() | st.integers(1, 3)
)


@given(
    st.lists(limited, min_size=1, max_size=5),
    st.lists(st.sampled_from(TYPES), max_size=30),
    st.lists(st.sampled_from(TYPES), max_size=4),
    st.lists(st.sampled_from(PATTERNS), max_size=2),
    st.integers(1, 12),
)
def test_no_limit_is_exceeded_and_no_capacity_left_unused(described, due, held, paused, free):
    handlers = handlers_of(*described)
    held = in_flight(*held)
    # Before: what is in hand may exceed a limit already, as after a deploy that lowered it.
    before = {handler.name: sum(handler.matches(claim.event.type) for claim in held) for handler in handlers}
    left = list(due)
    taken = claim_from(left, handlers, held, free, paused)
    assert len(taken) <= free
    assert not any(matches_any(paused, claim.event.type) for claim in taken)
    room = {}
    for handler in handlers:
        if handler.concurrency is not None:
            now = before[handler.name] + sum(handler.matches(claim.event.type) for claim in taken)
            assert now <= max(handler.concurrency, before[handler.name])
            room[handler.name] = handler.concurrency - now
    if len(taken) < free:
        for type in left:
            full = [h for h in handlers if h.concurrency is not None and h.matches(type) and room[h.name] <= 0]
            assert full or matches_any(paused, type), f"{type} could have been taken"


@given(st.lists(limited, min_size=1, max_size=4), st.integers(1, 2), st.integers(0, 3))
def test_no_group_starves(described, free, held_for):
    """Each type is claimed at some time, although each alone would use all capacity."""
    handlers = handlers_of(*described)
    monotonic = Monotonic()
    turns = RoundRobin(monotonic)
    held, seen = [], Counter()
    for request in range(400):
        monotonic.now += 1.0
        held = [(until, claim) for until, claim in held if until > request]
        due = list(TYPES) * 3
        for claim in claim_from(due, handlers, [claim for _, claim in held], free, turns=turns):
            seen[claim.event.type] += 1
            # Some take longer than others, so that they never end all at once.
            held.append((request + held_for + TYPES.index(claim.event.type) % 2, claim))
    groups = [{handler.name for handler in handlers if handler.concurrency and handler.matches(t)} for t in TYPES]
    for type, group in zip(TYPES, groups, strict=True):
        # Types that the same limited handlers match are one to this module: among them the inbox decides.
        alike = [other for other, its in zip(TYPES, groups, strict=True) if its == group]
        assert any(seen[other] for other in alike), f"{type} starved: {seen}"


def test_group_that_needs_two_handlers_gets_reserved_capacity():
    """Each of the two handlers is busy whenever the other is free."""
    handlers = handlers_of((["user.*", "other"], 1), (["auth.*", "other"], 1))
    monotonic = Monotonic()
    turns = RoundRobin(monotonic)

    def take(*held):
        return list(
            counted(claim_from(["user.created", "auth.login", "other"], handlers, in_flight(*held), turns=turns))
        )

    assert take("user.created", "auth.login") == []
    for _ in range(5):
        monotonic.now += MAX_BLOCKAGE / 10
        assert take("user.created") == ["auth.login"]
        assert take("auth.login") == ["user.created"]
    monotonic.now += MAX_BLOCKAGE
    assert take("user.created") == []
    assert take() == ["other"]
    assert take("other") == []
    # It has had its turn, and gives way to others as before.
    for _ in range(3):
        assert take("user.created") == ["auth.login"]
        assert take("auth.login") == ["user.created"]


def test_least_recently_claimed_group_goes_first():
    handlers = handlers_of((["user.*"], 5), (["auth.*"], 5))
    turns = RoundRobin()
    due = TYPES * 10
    taken = [claim.event.type for _ in range(6) for claim in claim_from(due, handlers, free=1, turns=turns)]
    families = [type.partition(".")[0] for type in taken]
    assert set(families[:3]) == {"user", "auth", "other"}
    assert families[3:] == families[:3]


# Order


def test_the_patterns_of_all_ordered_handlers_are_in_every_claim():
    handlers = Handlers()
    handlers.on("user.*", name="a", ordered=True)(lambda event: None)
    handlers.on("auth.*", "user.*", name="b", stale="skip")(lambda event: None)
    handlers.on("api.*", name="c", concurrency=1)(lambda event: None)
    handlers.on("*", name="d")(lambda event: None)
    assert ordered_patterns(handlers) == ("user.*", "auth.*")
    asked = []
    claim_from([], tuple(handlers), asked=asked)
    assert [request.filter.ordered for request in asked] == [("user.*", "auth.*")] * 2


# Pauses


def test_paused_events_are_excluded_from_every_claim():
    handlers = handlers_of((["user.*"], 1), (["auth.*"], None))
    assert counted(claim_from(list(TYPES), handlers, paused=["user.created", "auth.*"])) == {
        "user.updated": 1,
        "other": 1,
    }


def test_nothing_is_claimed_if_all_is_paused():
    asked = []
    assert claim_from(list(TYPES), handlers_of((["user.*"], 1)), paused=["*"], asked=asked) == []
    assert asked == []
    claim_from(list(TYPES), handlers_of((["user.created"], 1)), paused=["user.*"], asked=asked)
    assert [request.filter.include for request in asked] == [None]


def test_paused_handler_holds_back_all_its_events():
    handlers = handlers_of((["user.*", "other"], None), (["auth.*"], None))
    assert set(paused_patterns({"handler:a"}, handlers)) == {"user.*", "other"}
    assert set(paused_patterns({"handler:b", "type:user.created"}, handlers)) == {"auth.*", "user.created"}
    assert paused_patterns({"handler:of another process", "else:x"}, handlers) == ()


def test_subjects_are_named():
    assert subject_of(type="user.*", handler=None) == "type:user.*"
    assert subject_of(type=None, handler="outer.<locals>.welcome") == "handler:outer.<locals>.welcome"
    [name] = paused_patterns({subject_of(type="user.*", handler=None)}, ())
    assert name == "user.*"


@pytest.mark.parametrize("named", [{}, {"type": "user.*", "handler": "welcome"}, {"handler": ""}])
def test_exactly_one_subject_is_named(named):
    with pytest.raises(ValueError, match="either a type or a handler"):
        subject_of(**{"type": None, "handler": None, **named})


@pytest.mark.parametrize("pattern", ["", "user*", "*.created", 3])
def test_a_malformed_type_is_refused(pattern):
    with pytest.raises(ConfigurationError):
        subject_of(type=pattern, handler=None)


def test_pauses_are_read_at_most_once_a_second():
    monotonic = Monotonic()
    pauses = Pauses(monotonic)
    answers = iter([frozenset({"a"}), frozenset({"b"}), frozenset({"c"})])
    known = lambda: pauses.known(lambda: next(answers))  # noqa: E731
    assert known() == known() == {"a"}
    monotonic.now += CACHE_SECONDS - 0.01
    assert known() == {"a"}
    monotonic.now += 0.01
    assert known() == known() == {"b"}
    pauses.forget()
    assert known() == {"c"}


def test_failed_read_of_the_pauses_is_repeated():
    pauses = Pauses()

    def fail():
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        pauses.known(fail)
    assert pauses.known(lambda: frozenset({"a"})) == {"a"}


# Patterns


@given(st.sampled_from(PATTERNS), st.sampled_from(PATTERNS), st.sampled_from(TYPES))
def test_of_two_patterns_that_overlap_one_covers_the_other(one, other, type):
    both = matches_any([one], type) and matches_any([other], type)
    assert not both or covers(one, other) or covers(other, one)
    assert not (covers(one, other) and matches_any([other], type)) or matches_any([one], type)
