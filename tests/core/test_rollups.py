"""Histograms, roll-ups and the figures of a window: values in, values out."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envoyou_core.analytics.histogram import BOUNDS, BUCKETS, NO_BUCKETS, add_buckets, bucket_of, quantile
from envoyou_core.analytics.rollups import FOLDS, Measure, Period, RollUp, Tally, fold, start_of, sum_tallies
from envoyou_core.analytics.summary import summarize

UNTIL = datetime(2026, 1, 2, tzinfo=UTC)
SINCE = UNTIL - timedelta(hours=24)

durations = st.floats(0, 100_000, allow_nan=False)
histograms = st.lists(st.integers(0, 1000), min_size=BUCKETS, max_size=BUCKETS).map(tuple)
tallies = st.builds(
    Tally,
    st.sampled_from(list(Measure)),
    st.sampled_from(["", "user.created", "user.updated"]),
    st.sampled_from(["", "welcome"]),
    number=st.integers(0, 100),
    total=st.integers(0, 10**9),
    buckets=st.sampled_from([NO_BUCKETS, tuple(range(BUCKETS)), (1,) * BUCKETS]),
)
rollups = st.builds(RollUp, st.just(Period.MINUTE), st.integers(0, 10_000).map(lambda minute: 60 * minute), tallies)


def histogram_of(several):
    buckets = [0] * BUCKETS
    for seconds in several:
        buckets[bucket_of(seconds)] += 1
    return tuple(buckets)


@given(durations)
def test_a_duration_is_within_the_bounds_of_its_bucket(seconds):
    bucket = bucket_of(seconds)
    assert (BOUNDS[bucket - 1] if bucket else -1.0) < seconds
    assert bucket == len(BOUNDS) or seconds <= BOUNDS[bucket]


@given(st.lists(durations, min_size=1), st.sampled_from([0.01, 0.5, 0.95, 0.99, 1.0]))
def test_a_percentile_is_in_the_bucket_of_the_exact_one(several, share):
    ordered = sorted(several)
    exact = ordered[max(0, -int(-share * len(ordered) // 1) - 1)]
    bucket = bucket_of(exact)
    estimate = quantile(histogram_of(several), share)
    assert (BOUNDS[bucket - 1] if bucket else 0.0) <= estimate
    assert estimate <= BOUNDS[min(bucket, len(BOUNDS) - 1)]


def test_nothing_has_no_percentile_and_the_last_bucket_only_a_lower_bound():
    assert quantile(NO_BUCKETS, 0.5) is None
    assert quantile(histogram_of([10**6]), 0.5) == BOUNDS[-1]
    assert quantile(histogram_of([0.8, 0.8]), 0.5) == pytest.approx(0.75)


@settings(max_examples=20)
@given(st.lists(histograms, max_size=4))
def test_histograms_are_added_up_in_any_order(several):
    assert add_buckets(several) == add_buckets(reversed(several))
    assert sum(add_buckets(several)) == sum(map(sum, several))


@settings(max_examples=30)
@given(st.lists(rollups, max_size=6))
def test_folding_keeps_every_count(several):
    hours = fold(several, Period.HOUR)
    assert all(rollup.start % Period.HOUR == 0 for rollup in hours)
    assert sum_tallies(rollup.tally for rollup in hours) == sum_tallies(rollup.tally for rollup in several)
    assert fold(hours, Period.DAY) == fold(several, Period.DAY)


@given(st.floats(0, 4e9), st.sampled_from(list(Period)))
def test_a_period_contains_its_moments(moment, period):
    start = start_of(moment, period)
    assert start % period == 0
    assert start <= moment < start + period


def test_minutes_hours_and_days_are_kept_for_longer_and_longer():
    assert [(step.period, step.into, step.after.days) for step in FOLDS] == [
        (60, 3600, 2),
        (3600, 86_400, 30),
        (86_400, None, 730),
    ]


def tally(measure, number, *, type="", handler="", seconds=()):
    total = round(sum(seconds) * 1_000_000)
    return Tally(measure, type, handler, number, total, histogram_of(seconds))


def test_the_rates_leave_out_what_anyone_can_cause():
    counts = [
        tally(Measure.ACCEPTED, 6, type="user.created"),
        tally(Measure.DUPLICATE, 2, type="user.created"),
        tally(Measure.INVALID, 1),
        tally(Measure.UNAVAILABLE, 1),
        tally(Measure.UNAUTHORIZED, 1000),
        tally(Measure.REFUSED, 1000),
        tally(Measure.SUCCEEDED, 6, type="user.created", handler="welcome"),
        tally(Measure.POSTPONED, 2, type="user.created", handler="welcome"),
        tally(Measure.FAILED, 2, type="user.created", handler="welcome"),
        tally(Measure.SKIPPED, 90, type="user.created", handler="welcome"),
    ]
    summary = summarize(counts, SINCE, UNTIL)
    assert summary.deliveries.genuine == 10
    assert summary.deliveries.rate == 0.8
    assert (summary.deliveries.unauthorized, summary.deliveries.unavailable) == (1000, 1)
    assert (summary.attempts.number, summary.attempts.error_rate) == (10, 0.2)
    assert summary.events_per_hour == 0.25
    assert list(summary.types) == ["user.created"]
    assert summary.types["user.created"].accepted == 6
    assert summary.handlers["welcome"].attempts.error_rate == 0.2


def test_times_are_those_of_genuine_answers_calls_and_processed_events():
    counts = [
        tally(Measure.ACCEPTED, 2, type="user.created", seconds=[0.02, 0.02]),
        tally(Measure.UNAVAILABLE, 1, seconds=[3.0]),
        tally(Measure.UNAUTHORIZED, 5, seconds=[9.0] * 5),
        tally(Measure.FAILED, 1, type="user.created", handler="welcome", seconds=[0.4]),
        tally(Measure.PROCESSED, 1, type="user.created", seconds=[40.0]),
    ]
    summary = summarize(counts, SINCE, UNTIL)
    assert summary.response.number == 3
    assert summary.response.mean == pytest.approx(3.04 / 3)
    assert 2.5 < summary.response.p99 <= 5
    assert summary.processing.mean == 40.0
    assert summary.handlers["welcome"].durations.number == 1


def test_a_window_without_counts_has_no_rates():
    summary = summarize([], SINCE, UNTIL)
    assert (summary.deliveries.rate, summary.attempts.error_rate, summary.response.p95) == (None, None, None)
    document = json.loads(json.dumps(summary.to_json()))
    assert document["delivery_rate"] is None
    assert document["since"] == "2026-01-01T00:00:00+00:00"


def test_measures_of_a_later_release_are_left_out():
    summary = summarize([Tally("delivery.unheard_of", "user.created", "", 5)], SINCE, UNTIL)
    assert summary.deliveries.genuine == 0
