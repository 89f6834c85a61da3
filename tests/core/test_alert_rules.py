"""When alerts fire and resolve: values in, values out, with a clock that is set by hand."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envoyou_core.alerts.observation import (
    Baseline,
    FleetObservation,
    HostObservation,
    has_worker,
    observe,
    volume_factor,
)
from envoyou_core.alerts.rules import FLEET_RULES, HOST_RULES, RULES, AlertRule, RuleState, next_state
from envoyou_core.alerts.states import AlertStates, Unsent, evaluate
from envoyou_core.analytics.rollups import Measure, Tally
from envoyou_core.inbox import HandlerSet, InboxStats, Process, ProcessKind, Status

NOW = 1_700_000_000.0
MOMENT = datetime.fromtimestamp(NOW, UTC)
RULE = AlertRule(name="some", threshold=10, clear=5, holds_for=60, template="{value:.0f} of {threshold:.0f}")
ALL_RULES = {**FLEET_RULES, **HOST_RULES}

FIRING = {
    "error_rate": FleetObservation(error_rate=0.2),
    "delivery_failures": FleetObservation(unavailable=1),
    "unusual_volume": FleetObservation(volume_factor=5),
    "processing_delay": FleetObservation(overdue=301),
    "silence": FleetObservation(silence=11),
    "dead_letters": FleetObservation(dead=1),
    "waiting_for_handler": FleetObservation(waiting=1),
    "no_worker": FleetObservation(has_worker=False),
    "spool_not_empty": HostObservation(spooled=1),
    "disk": HostObservation(disk_used=0.95),
}
CALM = {
    "error_rate": FleetObservation(error_rate=0.05),
    "delivery_failures": FleetObservation(),
    "unusual_volume": FleetObservation(volume_factor=1.5),
    "processing_delay": FleetObservation(overdue=59),
    "silence": FleetObservation(silence=0.5),
    "dead_letters": FleetObservation(),
    "waiting_for_handler": FleetObservation(),
    "no_worker": FleetObservation(has_worker=True),
    "spool_not_empty": HostObservation(spooled=0),
    "disk": HostObservation(disk_used=0.8),
}


def test_every_rule_is_shown():
    assert set(FIRING) == set(CALM) == set(RULES) == set(ALL_RULES)


@pytest.mark.parametrize("name", sorted(RULES))
def test_each_alert_fires_once_and_resolves_once(name):
    rules = [ALL_RULES[name]]
    states, now, seen = AlertStates(), NOW, []
    for observed in (CALM[name], *[FIRING[name]] * 30, *[CALM[name]] * 30):
        # Through the form in which it is stored, as after a restart.
        states, alerts = evaluate(AlertStates.decode(states.encode()), rules, observed, now, name="default")
        seen += alerts
        now += 30
    assert [(alert.rule, alert.is_firing) for alert in seen] == [(name, True), (name, False)]
    fired, resolved = seen
    assert fired.at == fired.fired_at == resolved.fired_at
    assert fired.at - MOMENT == timedelta(seconds=30 + RULES[name].holds_for)
    assert fired.value > fired.threshold
    assert "FIRING" in fired.title
    assert "resolved" in resolved.title


def run(values, rule=RULE, step=30):
    state, firing = RuleState(), []
    for number, value in enumerate(values):
        state = next_state(rule, state, value, NOW + step * number)
        firing.append(state.is_firing)
    return firing


def test_a_value_must_stay_above_the_threshold_for_a_while():
    assert run([11, 11, 11, 11]) == [False, False, True, True]
    assert run([11, 11, 9, 11, 11, 11]) == [False, False, False, False, False, True]
    assert run([10] * 5) == [False] * 5


def test_a_value_that_varies_about_the_threshold_fires_once():
    assert run([11] * 3 + [6, 11, 6, 9, 5, 9]) == [False, False, True, True, True, True, True, False, False]


def test_without_a_value_nothing_changes():
    assert run([11, 11, 11, None, 6, 5]) == [False, False, True, True, True, False]
    assert run([11, 11, None, 11]) == [False] * 4


@given(st.lists(st.none() | st.floats(0, 20), max_size=40))
def test_firing_and_resolving_alternate_and_obey_the_bounds(values):
    state = RuleState()
    for number, value in enumerate(values):
        after = next_state(RULE, state, value, NOW + 30 * number)
        if after.is_firing and not state.is_firing:
            assert value > RULE.threshold
            assert values[max(0, number - 2) : number + 1] == [
                it for it in values[max(0, number - 2) : number + 1] if it is not None and it > RULE.threshold
            ]
            assert number >= 2
        if state.is_firing and not after.is_firing:
            assert value <= RULE.clear
        state = after


def test_another_threshold_keeps_the_proportion_of_the_hysteresis():
    changed = RULE.at(20)
    assert (changed.threshold, changed.clear, changed.holds_for) == (20, 10, 60)
    assert RULES["dead_letters"].at(5).clear == 5
    assert changed.text(21) == "21 of 20"


def test_a_rule_that_is_turned_off_is_forgotten():
    states, _ = evaluate(AlertStates(), [ALL_RULES["dead_letters"]], FIRING["dead_letters"], NOW, name="default")
    states, alerts = evaluate(states, [], FIRING["dead_letters"], NOW, name="default")
    assert (states.rules, alerts) == ({}, [])


def test_states_survive_storage_and_what_is_unreadable_is_forgotten():
    states, _ = evaluate(
        AlertStates(last_delivery=1.5, baseline=Baseline(NOW, 60.0, (1, 2))),
        [ALL_RULES["disk"]],
        FIRING["disk"],
        NOW,
        name="default",
        host="web-1",
        notifiers=["email"],
    )
    assert AlertStates.decode(states.encode()) == states
    assert states.unsent[0].alert.title == "EnvoyOU webhooks (default) on web-1: disk FIRING"
    for stored in ("", "null", "[]", "{}", '{"rules": {"a": {"later": 1}}, "baseline": null}', "nonsense"):
        assert AlertStates.decode(stored) == AlertStates()
    with pytest.raises(TypeError, match="cannot store a complex"):
        replace(states, unsent=(Unsent(1j, "email"),)).encode()


# What is observed


def process(kind, ago=0.0):
    at = MOMENT - timedelta(seconds=ago)
    return Process(f"{kind}{ago}", kind, HandlerSet.of(()), "web-1", 1, "1.0", at, at)


@pytest.mark.parametrize(
    ("processes", "expected"),
    [
        ([], None),
        ([process(ProcessKind.ACCEPTS), process(ProcessKind.DRAIN)], None),
        ([process(ProcessKind.WORKER)], True),
        ([process(ProcessKind.WORKER, 61)], False),
        ([process(ProcessKind.STOPPED)], False),
        ([process(ProcessKind.STOPPED), process(ProcessKind.WORKER, 20)], True),
    ],
)
def test_a_worker_is_alive_while_it_beats(processes, expected):
    assert has_worker(processes, MOMENT) is expected


@pytest.mark.parametrize(
    ("number", "volumes", "expected"),
    [
        (100, (), None),
        (100, (100,), None),
        (100, (100, 100), 1.0),
        (500, (100, 100), 5.0),
        (20, (100, 100), 5.0),
        (0, (100, 100), 100.0),
        (19, (1, 1), 1.0),
        (40, (1, 0.5), 40.0),
    ],
)
def test_a_volume_is_compared_with_the_same_hour_of_past_weeks(number, volumes, expected):
    assert volume_factor(number, volumes) == expected


@settings(max_examples=50)
@given(st.integers(0, 1000), st.lists(st.integers(1, 1000), min_size=2, max_size=4))
def test_a_volume_factor_is_at_least_1(number, volumes):
    assert volume_factor(number, volumes) >= 1


def stats(**counts):
    return InboxStats(
        {status: counts.get(status.value, 0) for status in Status}, 7.0, waiting={"welcome": 2, "bill": 3}
    )


def test_an_observation_is_computed_from_counts_and_the_inbox():
    recent = [
        Tally(Measure.SUCCEEDED, "user.created", "welcome", 6),
        Tally(Measure.FAILED, "user.created", "welcome", 4),
        Tally(Measure.UNAVAILABLE, "", "", 3),
    ]
    hour = [Tally(Measure.ACCEPTED, "user.created", "", 500)]
    baseline = Baseline.of(NOW, 100, 10_000.0, [100, 0, 100])
    seen = observe(recent, hour, stats(dead=5), [process(ProcessKind.WORKER)], baseline, NOW - 500, MOMENT)
    assert seen == FleetObservation(
        error_rate=0.4, unavailable=3, volume_factor=5.0, overdue=7.0, silence=5.0, dead=5, waiting=5, has_worker=True
    )


def test_few_calls_have_no_error_rate_and_few_deliveries_no_usual_gap():
    recent = [Tally(Measure.FAILED, "user.created", "welcome", 9)]
    seen = observe(recent, [], stats(), [], Baseline.of(NOW, 19, 10_000.0, []), NOW - 500, MOMENT)
    assert (seen.error_rate, seen.silence, seen.volume_factor) == (0.0, None, None)
    assert Baseline.of(NOW, 10**9, 10_000.0, []).gap == 60.0
