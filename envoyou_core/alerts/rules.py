"""The rules by which alerts fire and resolve: values in, values out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from envoyou_core.alerts.observation import FleetObservation, HostObservation

__all__ = ["FLEET_RULES", "HOST_RULES", "RULES", "AlertRule", "RuleState", "next_state"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRule:
    """When an alert fires and resolves.

    It fires when its value has been above `threshold` for `holds_for` seconds, and resolves when the value is at or
    below `clear`. Between the two it stays as it is, so that a value that varies about the threshold fires once.

    Attributes:
        name: of the alert, as in settings.
        threshold: the value above which it fires.
        clear: the value at or below which it resolves, at most the threshold.
        holds_for: seconds.
        template: what the alert says, with `{value}` and `{threshold}`.
    """

    name: str
    threshold: float
    clear: float
    holds_for: float = 0.0
    template: str

    def at(self, threshold: float) -> AlertRule:
        """Return this rule with another threshold; `clear` is as far below it, in proportion, as before."""
        share = self.clear / self.threshold if self.threshold else 1.0
        return AlertRule(
            name=self.name,
            threshold=threshold,
            clear=threshold * share,
            holds_for=self.holds_for,
            template=self.template,
        )

    def text(self, value: float) -> str:
        """Return what the alert says about a value."""
        return self.template.format(value=value, threshold=self.threshold)


@dataclass(frozen=True, slots=True)
class RuleState:
    """The state of one alert, in epoch seconds.

    Attributes:
        above_since: since when the value has been above the threshold; `None` if it is not.
        fired_at: when it fired; `None` if it does not.
        value: the value at the last evaluation.
        resolved_at: when it resolved the last time; `None` if it never has.
    """

    above_since: float | None = None
    fired_at: float | None = None
    value: float = 0.0
    resolved_at: float | None = None

    @property
    def is_firing(self) -> bool:
        """Whether it has fired and not resolved since."""
        return self.fired_at is not None


def next_state(rule: AlertRule, state: RuleState, value: float | None, now: float) -> RuleState:
    """Return the state after an evaluation.

    Args:
        rule: the rule.
        state: the state before.
        value: the observed value; `None` if nothing can be said, which resolves no alert and fires none.
        now: epoch seconds.
    """
    if value is None:
        return replace(state, above_since=None)
    if state.fired_at is not None:
        if value <= rule.clear:
            return RuleState(value=value, resolved_at=now)
        return replace(state, above_since=None, value=value)
    if value <= rule.threshold:
        return replace(state, above_since=None, value=value)
    above_since = now if state.above_since is None else state.above_since
    fired_at = now if now - above_since >= rule.holds_for else None
    return replace(state, above_since=above_since, fired_at=fired_at, value=value)


_FLEET: Final[Mapping[AlertRule, Callable[[FleetObservation], float | None]]] = {
    AlertRule(
        name="error_rate",
        threshold=0.1,
        clear=0.05,
        template="{value:.0%} of the handler calls of the last 10 minutes failed, more than {threshold:.0%}",
    ): lambda seen: seen.error_rate,
    AlertRule(
        name="delivery_failures",
        threshold=0,
        clear=0,
        template="{value:.0f} deliveries of the last 10 minutes were answered 503",
    ): lambda seen: seen.unavailable,
    AlertRule(
        name="unusual_volume",
        threshold=4,
        clear=2,
        template="the number of events of the last hour differs by a factor of {value:.1f} from that of past weeks",
    ): lambda seen: seen.volume_factor,
    AlertRule(
        name="processing_delay",
        threshold=300,
        clear=60,
        template="an event has been due for {value:.0f} s, more than {threshold:.0f} s",
    ): lambda seen: seen.overdue,
    AlertRule(
        name="silence",
        threshold=10,
        clear=1,
        template="no delivery came for {value:.0f} times the usual gap",
    ): lambda seen: seen.silence,
    AlertRule(name="dead_letters", threshold=0, clear=0, template="{value:.0f} events are dead"): lambda seen: (
        seen.dead
    ),
    AlertRule(
        name="waiting_for_handler",
        threshold=0,
        clear=0,
        holds_for=300,
        template="{value:.0f} events wait for a handler that no live process has",
    ): lambda seen: seen.waiting,
    AlertRule(name="no_worker", threshold=0, clear=0, holds_for=60, template="no worker is alive"): lambda seen: (
        None if seen.has_worker is None else float(not seen.has_worker)
    ),
}
_HOST: Final[Mapping[AlertRule, Callable[[HostObservation], float | None]]] = {
    AlertRule(
        name="spool_not_empty",
        threshold=0,
        clear=0,
        holds_for=60,
        template="{value:.0f} events are in the spool of this machine",
    ): lambda seen: seen.spooled,
    AlertRule(
        name="disk",
        threshold=0.9,
        clear=0.85,
        template="{value:.0%} of the disk of the inbox or the spool is used, more than {threshold:.0%}",
    ): lambda seen: seen.disk_used,
}
FLEET_RULES: Final = {rule.name: (rule, value) for rule, value in _FLEET.items()}
"""What any process can evaluate for all of them, by name."""

HOST_RULES: Final = {rule.name: (rule, value) for rule, value in _HOST.items()}
"""What only a process of the same machine can see."""

RULES: Final[Mapping[str, AlertRule]] = {rule.name: rule for rule in (*_FLEET, *_HOST)}
"""All rules by name."""
