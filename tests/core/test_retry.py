"""The guide's retry policy, and others."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envoyou_core import ConfigurationError, RetryPolicy


def test_the_default_is_the_guides():
    policy = RetryPolicy()
    assert policy.max_attempts == 3
    assert [policy.delay_after(1), policy.delay_after(2)] == [2.0, 4.0]
    assert policy.max_crashes == 5


def test_a_patient_policy_stops_growing_at_its_longest_delay():
    policy = RetryPolicy(max_attempts=20, initial_delay=60, factor=10, max_delay=3600)
    assert [policy.delay_after(attempt) for attempt in (1, 2, 3, 4, 20)] == [60, 600, 3600, 3600, 3600]


def test_a_factor_of_one_keeps_the_delay():
    assert RetryPolicy(initial_delay=5, factor=1).delay_after(9) == 5


def test_no_attempt_is_too_late_for_a_delay():
    for attempt in (1000, 2000, 10**9):
        assert RetryPolicy(max_attempts=10**10).delay_after(attempt) == 3600
        assert RetryPolicy(initial_delay=0, max_delay=10).delay_after(attempt) <= 10


@given(
    attempt=st.integers(1, 10**6),
    initial=st.floats(0, 1e6),
    factor=st.floats(1, 1e6),
    longest=st.floats(0, 1e6),
)
def test_a_delay_is_a_finite_number_within_its_bound(attempt, initial, factor, longest):
    delay = RetryPolicy(initial_delay=initial, factor=factor, max_delay=longest).delay_after(attempt)
    assert math.isfinite(delay)
    assert 0 <= delay <= longest


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"max_crashes": 0},
        {"max_interruptions": -1},
        {"max_interruptions": 21},
        {"initial_delay": -1},
        {"initial_delay": math.inf},
        {"initial_delay": math.nan},
        {"factor": 0.5},
        {"factor": math.nan},
        {"max_delay": -1},
        {"max_delay": math.nan},
        {"factor": math.inf},
        {"max_delay": math.inf},
        {"max_delay": 1e10},
        {"initial_delay": 1e10},
    ],
    ids=str,
)
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigurationError):
        RetryPolicy(**wrong)


def test_a_policy_cannot_be_changed():
    with pytest.raises(AttributeError):
        RetryPolicy().max_attempts = 4
