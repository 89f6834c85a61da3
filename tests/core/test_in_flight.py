"""The claims of a worker: queued, running in a slot, or waiting to be settled."""

import threading
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from envoyou_core.inbox import Claim
from envoyou_core.testing import sample_event
from envoyou_core.worker.in_flight import InFlight

NO_BOUND = 1_000


def claim(key, **details):
    return Claim(key, f"lease {key}", sample_event(id=f"evt_{key}"), datetime(2026, 1, 1, tzinfo=UTC), **details)


@pytest.fixture
def in_flight():
    return InFlight(slots=2)


def test_oldest_claims_start_first_up_to_the_number_of_slots(in_flight):
    first, second, third = claims = [claim(key) for key in range(3)]
    in_flight.accept(claims)
    assert [in_flight.begin(), in_flight.begin(), in_flight.begin()] == [first, second, None]
    in_flight.end(second)
    assert in_flight.begin() == third
    assert in_flight.claims == [first, third]


def test_settling_claim_needs_no_slot_but_is_in_flight(in_flight):
    first, second, third = claims = [claim(key) for key in range(3)]
    in_flight.accept(claims)
    in_flight.begin(), in_flight.begin()
    in_flight.release(first)
    assert (in_flight.settling, in_flight.begun) == (1, 2)
    assert in_flight.begin() == third
    in_flight.end(first)
    assert (in_flight.settling, in_flight.claims) == (0, [second, third])


def test_an_event_whose_lease_was_lost_may_be_in_flight_a_second_time(in_flight):
    lost = claim(1)
    again = replace(lost, token="the next lease")
    in_flight.accept([lost, again])
    assert [in_flight.begin(), in_flight.begin()] == [lost, again]
    in_flight.release(lost)
    in_flight.end(lost)
    assert in_flight.claims == [again]


def test_closed_in_flight_starts_nothing_and_withdraws_the_queued(in_flight):
    claims = [claim(1), claim(2)]
    in_flight.accept(claims)
    in_flight.close()
    assert in_flight.begin() is None
    assert in_flight.withdraw() == claims
    assert in_flight.claims == []


def test_queued_claims_are_stale_only_if_none_has_started_for_long(in_flight):
    waiting = claim(1)
    in_flight.accept([waiting])
    assert in_flight.take_stale(patience=60) == []
    assert in_flight.take_stale(patience=-1) == [waiting]
    assert in_flight.take_stale(patience=-1) == []


def test_capacity_is_the_free_slots_and_more_if_attempts_are_short(in_flight):
    assert in_flight.capacity(NO_BOUND) == 2
    in_flight.accept([claim(1)])
    in_flight.end(in_flight.begin())
    assert in_flight.capacity(NO_BOUND) == 2, "nothing is known of an attempt that did not come to its end"
    in_flight.accept([claim(2)])
    done = in_flight.begin()
    in_flight.release(done)
    in_flight.end(done)
    assert in_flight.capacity(NO_BOUND) > 2


def test_no_capacity_while_enough_are_queued(in_flight):
    in_flight.accept([claim(key) for key in range(2)])
    in_flight.begin(), in_flight.begin()
    assert in_flight.capacity(NO_BOUND) == 0
    in_flight.accept([claim(3)])
    assert in_flight.capacity(NO_BOUND) == 0
    assert not in_flight.below_low_watermark


def test_no_capacity_while_many_are_settling(in_flight):
    in_flight.accept([claim(1), claim(2)])
    for _ in range(2):
        in_flight.release(in_flight.begin())
    assert in_flight.capacity(max_settling=2) > 0
    assert in_flight.capacity(max_settling=1) == 0


def test_nothing_is_prefetched_beside_an_event_that_may_have_crashed_a_worker(in_flight):
    in_flight.accept([claim(1)])
    in_flight.release(in_flight.begin())
    in_flight.accept([claim(2, crashes=1)])
    in_flight.begin()
    assert in_flight.capacity(NO_BOUND) == 1


def test_no_two_threads_start_the_same_claim():
    in_flight = InFlight(slots=8)
    in_flight.accept(claim(key) for key in range(400))
    taken = []

    def work():
        while (begun := in_flight.begin()) is not None:
            taken.append(begun.key)
            in_flight.release(begun)
            in_flight.end(begun)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(taken) == list(range(400))
