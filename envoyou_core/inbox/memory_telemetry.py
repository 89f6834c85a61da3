"""The roll-ups and the states of alerts of the memory inbox."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Sequence
from datetime import datetime, timedelta

from envoyou_core.analytics.rollups import Fold, RollUp, Tally, fold, sum_tallies
from envoyou_core.inbox.protocol import TelemetryInbox

__all__ = ["MemoryTelemetry"]


class MemoryTelemetry(TelemetryInbox):
    """The methods of `TelemetryInbox`, for an inbox."""

    _lock: threading.Lock

    def __init__(self) -> None:
        self._rollups: list[RollUp] = []
        self._alerts: dict[str, tuple[str, str, datetime]] = {}

    @abstractmethod
    def _now(self) -> datetime: ...

    def add_rollups(self, rollups: Sequence[RollUp]) -> None:
        with self._lock:
            self._add_rollups(rollups)

    def _add_rollups(self, rollups: Sequence[RollUp]) -> None:
        periods = {rollup.period for rollup in (*self._rollups, *rollups)}
        every = (*self._rollups, *rollups)
        self._rollups = [
            summed
            for period in sorted(periods)
            for summed in fold((rollup for rollup in every if rollup.period == period), period)
        ]

    def sum_rollups(self, since: datetime, until: datetime) -> list[Tally]:
        start, end = since.timestamp(), until.timestamp()
        with self._lock:
            return sum_tallies(
                rollup.tally for rollup in self._rollups if rollup.start < end and rollup.start + rollup.period > start
            )

    def fold_rollups(self, step: Fold) -> int:
        with self._lock:
            before = (self._now() - step.after).timestamp()
            old = [rollup for rollup in self._rollups if rollup.period == step.period and rollup.start < before]
            self._rollups = [rollup for rollup in self._rollups if rollup not in old]
            if step.into is not None:
                self._add_rollups(fold(old, step.into))
            return len(old)

    def alert_states(self) -> dict[str, str]:
        with self._lock:
            return {scope: states for scope, (states, _, _) in self._alerts.items()}

    def claim_alerts(self, token: str, lease: float, scope: str = "") -> str | None:
        with self._lock:
            states, _, due_at = self._alerts.get(scope, ("", "", self._now()))
            if due_at > self._now():
                return None
            self._alerts[scope] = (states, token, self._now() + timedelta(seconds=lease))
            return states

    def store_alerts(self, token: str, states: str, due_in: float, scope: str = "") -> bool:
        with self._lock:
            if self._alerts.get(scope, ("", "", None))[1] != token:
                return False
            self._alerts[scope] = (states, token, self._now() + timedelta(seconds=due_in))
            return True
