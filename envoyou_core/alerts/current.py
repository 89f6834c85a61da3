"""The alerts that fire now or have resolved lately, as they are stored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from envoyou_core.alerts.states import AlertStates

__all__ = ["RECENT", "CurrentAlert", "current_alerts"]

RECENT: Final = timedelta(hours=24)
"""For how long a resolved alert is listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentAlert:
    """An alert that fires, or has resolved lately.

    Attributes:
        rule: the name of its rule, such as `dead_letters`.
        is_firing: whether it fires; otherwise it has resolved.
        host: the machine that it concerns; empty if it concerns all.
        since: when it fired or resolved, in UTC.
        value: the value at the last evaluation.
    """

    rule: str
    is_firing: bool
    host: str = ""
    since: datetime
    value: float

    def to_json(self) -> dict[str, Any]:
        """Return the alert as values of JSON."""
        return {
            "rule": self.rule,
            "state": "firing" if self.is_firing else "resolved",
            "host": self.host or None,
            "since": self.since.isoformat(),
            "value": self.value,
        }


def current_alerts(stored: Iterable[str], now: float) -> list[CurrentAlert]:
    """Return the alerts that fire, and those that have resolved within `RECENT`, the latest of each first.

    Args:
        stored: the states of all scopes, as an inbox has stored them.
        now: epoch seconds.
    """
    found = []
    for states in map(AlertStates.decode, stored):
        for rule, state in states.rules.items():
            at = state.fired_at if state.is_firing else state.resolved_at
            if at is not None and (state.is_firing or now - at <= RECENT.total_seconds()):
                found.append(
                    CurrentAlert(
                        rule=rule,
                        is_firing=state.is_firing,
                        host=states.host,
                        since=datetime.fromtimestamp(at, UTC),
                        value=state.value,
                    )
                )
    return sorted(found, key=lambda alert: (not alert.is_firing, -alert.since.timestamp(), alert.rule, alert.host))
