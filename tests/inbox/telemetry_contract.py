"""What every inbox does with roll-ups and the states of alerts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from envoyou_core.analytics.histogram import BUCKETS
from envoyou_core.analytics.rollups import FOLDS, Measure, Period, RollUp, Tally, start_of
from tests.inbox.acts import PATIENCE

MINUTES, HOURS, DAYS = FOLDS
ALWAYS = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


def buckets(**counts):
    return tuple(counts.get(f"b{number}", 0) for number in range(BUCKETS))


def rollup(clock, number=1, *, ago=0.0, measure=Measure.ACCEPTED, type="user.created", handler="", **counts):
    start = start_of(clock() - ago, Period.MINUTE)
    total = sum(counts.values()) * 2_000
    return RollUp(Period.MINUTE, start, Tally(measure, type, handler, number, total, buckets(**counts)))


def within(inbox, clock, seconds, *, later=0.0):
    return inbox.sum_rollups(clock.moment(later - seconds), clock.moment(later))


class TelemetryContract:
    """For every inbox. See `InboxContract`."""

    def test_counts_of_one_minute_are_added_up(self, inbox, clock):
        inbox.add_rollups([rollup(clock, 3, b1=2, b17=1)])
        inbox.add_rollups([rollup(clock, 4, b1=1, b0=3), rollup(clock, 1, measure=Measure.DEAD)])
        assert within(inbox, clock, 60, later=60) == [
            Tally(Measure.ACCEPTED, "user.created", "", 7, 14_000, buckets(b0=3, b1=3, b17=1)),
            Tally(Measure.DEAD, "user.created", "", 1),
        ]

    def test_large_counts_stay_exact(self, inbox, clock):
        inbox.add_rollups([rollup(clock, 2**40, b0=2**41)] * 2)
        (tally,) = within(inbox, clock, 60, later=60)
        assert (tally.number, tally.buckets[0]) == (2**41, 2**42)

    def test_names_are_compared_by_bytes(self, inbox, clock):
        for type in ("user.created", "User.created", "user.created ", "user.créated", "x" * 255):
            inbox.add_rollups([rollup(clock, type=type, handler="h" * 255)])
        assert {tally.number for tally in inbox.sum_rollups(*ALWAYS)} == {1}
        assert len(inbox.sum_rollups(*ALWAYS)) == 5

    def test_no_counts_are_no_work(self, inbox):
        inbox.add_rollups([])
        assert inbox.sum_rollups(*ALWAYS) == []

    def test_the_inboxes_of_a_database_count_apart(self, inbox, make_inbox, clock):
        make_inbox(clock, name="billing").add_rollups([rollup(clock)])
        assert inbox.sum_rollups(*ALWAYS) == []

    def test_a_window_has_the_minutes_that_it_touches(self, inbox, clock):
        for minutes in range(5):
            inbox.add_rollups([rollup(clock, 10**minutes, ago=60 * minutes)])
        at_start = start_of(clock(), Period.MINUTE) - clock()
        (tally,) = within(inbox, clock, 120, later=at_start)
        assert tally.number == 110
        (tally,) = within(inbox, clock, 122, later=at_start + 1)
        assert tally.number == 1111

    def test_processes_that_count_at_once_lose_nothing(self, make_inbox, clock):
        inboxes = [make_inbox(clock)] * 4
        counts = [rollup(clock, handler=name, b2=1) for name in "dbca"]
        with ThreadPoolExecutor(4) as threads:
            adding = [
                threads.submit(inbox.add_rollups, counts[number % 4 :] + counts[: number % 4])
                for number, inbox in enumerate(inboxes * 5)
            ]
            for added in adding:
                added.result(PATIENCE)
        tallies = inboxes[0].sum_rollups(*ALWAYS)
        assert [(tally.handler, tally.number, tally.buckets[2]) for tally in tallies] == [
            (name, 20, 20) for name in "abcd"
        ]

    def test_old_minutes_are_folded_into_hours_and_days_and_deleted_in_the_end(self, inbox, clock):
        for ago in (0, 60, 47 * 3600, 49 * 3600, 49 * 3600 + 60):
            inbox.add_rollups([rollup(clock, 1, ago=ago, b3=1)])
        assert inbox.fold_rollups(MINUTES) == 2
        assert inbox.fold_rollups(MINUTES) == 0
        (tally,) = inbox.sum_rollups(*ALWAYS)
        assert (tally.number, tally.total, tally.buckets[3]) == (5, 10_000, 5)
        (recent,) = within(inbox, clock, 48 * 3600, later=60)
        assert recent.number == 3
        clock.advance(31 * 86_400)
        assert inbox.fold_rollups(MINUTES) == 3
        assert 1 <= inbox.fold_rollups(HOURS) <= 4
        assert [tally.number for tally in inbox.sum_rollups(*ALWAYS)] == [5]
        clock.advance(731 * 86_400)
        assert 1 <= inbox.fold_rollups(DAYS) <= 4
        assert inbox.sum_rollups(*ALWAYS) == []

    def test_counts_that_come_late_join_those_that_were_folded(self, inbox, clock):
        for _ in range(2):
            inbox.add_rollups([rollup(clock, 2, ago=50 * 3600, b1=2)])
            inbox.fold_rollups(MINUTES)
        (tally,) = inbox.sum_rollups(*ALWAYS)
        assert (tally.number, tally.buckets[1]) == (4, 4)

    def test_folding_works_in_batches(self, inbox, clock):
        inbox.add_rollups([rollup(clock, 1, ago=50 * 3600, handler=f"h{number:04}") for number in range(501)])
        assert inbox.fold_rollups(MINUTES) == 501
        assert len(inbox.sum_rollups(*ALWAYS)) == 501

    # Alerts

    def test_one_process_at_a_time_evaluates_alerts(self, make_inbox, inbox, clock):
        assert inbox.alert_states() == {}
        assert inbox.claim_alerts("one", 60.0) == ""
        assert inbox.claim_alerts("two", 60.0) is None
        assert inbox.store_alerts("one", '{"a": 1}', 30.0)
        assert inbox.alert_states() == {"": '{"a": 1}'}
        clock.advance(29.0)
        assert inbox.claim_alerts("two", 60.0) is None
        clock.advance(1.0)
        assert inbox.claim_alerts("two", 60.0) == '{"a": 1}'

    def test_another_process_takes_over_the_alerts_of_one_that_died(self, inbox, clock):
        assert inbox.claim_alerts("one", 60.0) == ""
        clock.advance(60.0)
        assert inbox.claim_alerts("two", 60.0) == ""
        assert not inbox.store_alerts("one", "old", 30.0)
        assert inbox.store_alerts("two", "new", 30.0)
        assert inbox.alert_states() == {"": "new"}

    def test_the_states_of_all_machines_are_read_and_no_others(self, make_inbox, inbox, clock):
        others = [make_inbox(clock, name=name) for name in ("other", "default_")]
        for each in (inbox, *others):
            each.open()
            each.claim_alerts("one", 60.0)
            each.claim_alerts("two", 60.0, scope="0123456789abcdef")
            each.store_alerts("two", each.name, 60.0, scope="0123456789abcdef")
        assert inbox.alert_states() == {"": "", "0123456789abcdef": inbox.name}

    @pytest.mark.parametrize("has_row", [False, True])
    def test_of_processes_that_claim_the_alerts_at_once_one_does(self, inbox, clock, has_row):
        if has_row:
            inbox.claim_alerts("before", 1.0)
            clock.advance(1.0)
        with ThreadPoolExecutor(4) as threads:
            claiming = [threads.submit(inbox.claim_alerts, f"token{number}", 60.0) for number in range(8)]
            assert sorted(str(claim.result(PATIENCE)) for claim in claiming) == ["", *["None"] * 7]

    def test_the_alerts_of_the_inboxes_of_a_database_are_apart(self, inbox, make_inbox, clock):
        assert inbox.claim_alerts("one", 60.0) == ""
        assert make_inbox(clock, name="billing").claim_alerts("two", 60.0) == ""
        assert inbox.store_alerts("one", "state", timedelta(days=1).total_seconds())
