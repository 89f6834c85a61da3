"""What a worker has in hand: who waits, who has a slot, who waits to be settled."""

import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from envoyou_core.handoff.in_hand import InHand
from envoyou_core.inbox import Claim
from envoyou_core.testing import sample_event

NO_BOUND = 1_000


def claim(key, **details):
    return Claim(key, f"lease {key}", sample_event(id=f"evt_{key}"), datetime(2026, 1, 1, tzinfo=UTC), **details)


@pytest.fixture
def in_hand():
    return InHand(slots=2)


def test_those_that_have_waited_longest_begin_first_and_no_more_than_there_are_slots(in_hand):
    first, second, third = claims = [claim(key) for key in range(3)]
    in_hand.accept(claims)
    assert [in_hand.begin(), in_hand.begin(), in_hand.begin()] == [first, second, None]
    in_hand.end(second)
    assert in_hand.begin() == third
    assert in_hand.claims == [first, third]


def test_what_waits_to_be_settled_needs_no_slot_and_is_in_hand_until_it_has_ended(in_hand):
    first, second, third = claims = [claim(key) for key in range(3)]
    in_hand.accept(claims)
    in_hand.begin(), in_hand.begin()
    in_hand.release(first)
    assert (in_hand.settling, in_hand.begun) == (1, 2)
    assert in_hand.begin() == third
    in_hand.end(first)
    assert (in_hand.settling, in_hand.claims) == (0, [second, third])


def test_an_event_whose_lease_was_lost_may_be_in_hand_a_second_time(in_hand):
    lost = claim(1)
    again = replace(lost, token="the next lease")
    in_hand.accept([lost, again])
    assert [in_hand.begin(), in_hand.begin()] == [lost, again]
    in_hand.release(lost)
    in_hand.end(lost)
    assert in_hand.claims == [again]


def test_once_closed_it_gives_no_more_slots_and_hands_out_what_waits(in_hand):
    claims = [claim(1), claim(2)]
    in_hand.accept(claims)
    in_hand.close()
    assert in_hand.begin() is None
    assert in_hand.withdraw() == claims
    assert in_hand.claims == []


def test_what_waits_is_withdrawn_only_when_none_had_its_turn_for_long(in_hand):
    waiting = claim(1)
    in_hand.accept([waiting])
    assert in_hand.withdraw_overdue(patience=60) == []
    assert in_hand.withdraw_overdue(patience=-1) == [waiting]
    assert in_hand.withdraw_overdue(patience=-1) == []


def test_there_is_room_for_the_free_slots_and_where_attempts_are_short_for_more(in_hand):
    assert in_hand.room(NO_BOUND) == 2
    in_hand.accept([claim(1)])
    in_hand.end(in_hand.begin())
    assert in_hand.room(NO_BOUND) == 2, "nothing is known of an attempt that did not come to its end"
    in_hand.accept([claim(2)])
    done = in_hand.begin()
    in_hand.release(done)
    in_hand.end(done)
    assert in_hand.room(NO_BOUND) > 2


def test_there_is_no_room_for_more_while_enough_wait(in_hand):
    in_hand.accept([claim(key) for key in range(2)])
    in_hand.begin(), in_hand.begin()
    assert in_hand.room(NO_BOUND) == 0
    in_hand.accept([claim(3)])
    assert in_hand.room(NO_BOUND) == 0
    assert not in_hand.is_running_low


def test_there_is_no_room_for_more_while_many_wait_to_be_settled(in_hand):
    in_hand.accept([claim(1), claim(2)])
    for _ in range(2):
        in_hand.release(in_hand.begin())
    assert in_hand.room(most_settling=2) > 0
    assert in_hand.room(most_settling=1) == 0


def test_nothing_is_claimed_ahead_beside_what_was_in_hand_when_a_process_died(in_hand):
    in_hand.accept([claim(1)])
    in_hand.release(in_hand.begin())
    in_hand.accept([claim(2, crashes=1)])
    in_hand.begin()
    assert in_hand.room(NO_BOUND) == 1


def test_no_two_threads_are_given_the_same_claim():
    in_hand = InHand(slots=8)
    in_hand.accept(claim(key) for key in range(400))
    taken = []

    def work():
        while (begun := in_hand.begin()) is not None:
            taken.append(begun.key)
            in_hand.release(begun)
            in_hand.end(begun)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(taken) == list(range(400))
