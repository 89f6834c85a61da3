"""Evaluates the alerts of an inbox at regular intervals, in one process at a time, and notifies."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from envoyou_core.alerts.config import Alerts
from envoyou_core.alerts.notifiers import Notifier
from envoyou_core.alerts.observation import Baseline, FleetObservation, HostObservation, observe
from envoyou_core.alerts.rules import FLEET_RULES, HOST_RULES, AlertRule
from envoyou_core.alerts.states import MAX_TRIES, AlertStates, Unsent, evaluate
from envoyou_core.analytics.summary import summarize
from envoyou_core.errors import describe
from envoyou_core.inbox.protocol import WorkerInbox
from envoyou_core.observability.alert_notices import AlertFired, AlertNotSent, AlertResolved
from envoyou_core.observability.notices import Notices

if TYPE_CHECKING:
    from envoyou_core.spool.spool import Spool

__all__ = ["INTERVAL", "LEASE", "Evaluator", "callback_names"]

INTERVAL: Final = 30.0
"""Seconds between two evaluations."""

LEASE: Final = 120.0
"""Seconds after which another process evaluates, if the one that claimed the evaluation does not end it."""

BASELINE_AGE: Final = 600.0
"""Seconds after which it is computed again what is usual."""

RECENT: Final = timedelta(minutes=10)
HOUR: Final = timedelta(hours=1)
WEEK: Final = timedelta(days=7)
WEEKS: Final = 4

Rules = list[tuple[AlertRule, Callable[[Any], float | None]]]


class Evaluator:
    """Evaluates alerts when that is due.

    Args:
        inbox: holds the counts and the states.
        spool: the spool of this machine, if there is one.
        config: the thresholds, and where alerts are sent.
        callbacks: the functions that were registered with `on_alert`, by name.
        notices: receives `AlertFired` and `AlertResolved`.
        clock: returns epoch seconds.
        host: the name of this machine.
    """

    def __init__(
        self,
        inbox: WorkerInbox,
        spool: Spool | None,
        *,
        config: Alerts,
        callbacks: Callable[[], Mapping[str, Notifier]],
        notices: Notices,
        clock: Callable[[], float],
        host: str | None = None,
    ) -> None:
        self._inbox = inbox
        self._spool = spool
        self._callbacks = callbacks
        self._configured = config.notifiers()
        self._notices = notices
        self._clock = clock
        self._host = socket.gethostname() if host is None else host
        self._fleet_rules = _selected(FLEET_RULES.values(), config)
        self._host_rules = _selected(HOST_RULES.values(), config)
        self._due_at: dict[str, float] = {}

    def run_due(self) -> None:
        """Evaluate what is due. Raises what the inbox raises."""
        if self._fleet_rules:
            self._run("", self._fleet_rules, self._observe_fleet, host="")
        if self._host_rules and (self._spool is not None or self._files()):
            scope = hashlib.sha256(self._host.encode()).hexdigest()[:16]
            self._run(scope, self._host_rules, self._observe_host, host=self._host)

    def _run(
        self,
        scope: str,
        rules: Rules,
        look: Callable[[AlertStates, float], tuple[AlertStates, FleetObservation | HostObservation]],
        *,
        host: str,
    ) -> None:
        now = self._clock()
        # A clock that was set back must not stop the evaluation.
        if 0 < self._due_at.get(scope, now) - now <= INTERVAL:
            return
        self._due_at[scope] = now + INTERVAL / 3
        token = uuid.uuid4().hex
        stored = self._inbox.claim_alerts(token, LEASE, scope=scope)
        if stored is None:
            return
        states, observed = look(AlertStates.decode(stored), now)
        notifiers = {**self._callbacks(), **self._configured}
        states, alerts = evaluate(
            states, rules, observed, now, name=self._inbox.name, host=host, notifiers=list(notifiers)
        )
        # Stored first: an alert is sent again after a kill, but does not fire again.
        if not self._inbox.store_alerts(token, states.encode(), LEASE, scope=scope):
            return
        for alert in alerts:
            self._notices.emit(AlertFired.of(alert) if alert.is_firing else AlertResolved.of(alert))
        unsent = tuple(self._send(states.unsent, notifiers))
        self._inbox.store_alerts(token, replace(states, unsent=unsent).encode(), INTERVAL, scope=scope)
        self._due_at[scope] = now + INTERVAL

    def _send(self, notifications: Iterable[Unsent], notifiers: Mapping[str, Notifier]) -> Iterable[Unsent]:
        """Send notifications; yields those that are to be tried again."""
        for unsent in notifications:
            notifier = notifiers.get(unsent.notifier)
            if notifier is None:
                detail = "this process has no such notifier"
            else:
                try:
                    notifier(unsent.alert)
                    continue
                except Exception as error:
                    detail = describe(error)
            tries = unsent.tries + 1
            is_last = tries >= MAX_TRIES
            self._notices.emit(
                AlertNotSent(
                    self._inbox.name, unsent.alert.rule, unsent.notifier, detail, None if is_last else INTERVAL
                )
            )
            if not is_last:
                yield replace(unsent, tries=tries)

    def _observe_fleet(self, states: AlertStates, now: float) -> tuple[AlertStates, FleetObservation]:
        moment = datetime.fromtimestamp(now, UTC)
        until = moment + timedelta(microseconds=1)
        recent = self._inbox.sum_rollups(moment - RECENT, until)
        deliveries = summarize(recent, moment, moment).deliveries
        last = states.last_delivery
        if last is None or deliveries.accepted or deliveries.duplicates:
            last = now
        baseline = states.baseline
        if baseline is None or not 0 <= now - baseline.computed_at < BASELINE_AGE:
            baseline = self._baseline(moment)
        hour = self._inbox.sum_rollups(moment - HOUR, until)
        observed = observe(recent, hour, self._inbox.stats(), self._inbox.processes(), baseline, last, moment)
        return replace(states, last_delivery=last, baseline=baseline), observed

    def _baseline(self, now: datetime) -> Baseline:
        week = summarize(self._inbox.sum_rollups(now - WEEK, now), now, now).deliveries
        hours = (
            self._inbox.sum_rollups(now - weeks * WEEK - HOUR, now - weeks * WEEK) for weeks in range(1, WEEKS + 1)
        )
        volumes = [summarize(hour, now, now).deliveries.accepted for hour in hours]
        return Baseline.of(now.timestamp(), week.accepted + week.duplicates, WEEK.total_seconds(), volumes)

    def _observe_host(self, states: AlertStates, _now: float) -> tuple[AlertStates, HostObservation]:
        spooled = None if self._spool is None else self._spool.stats().total
        return states, HostObservation(spooled=spooled, disk_used=_fullest(self._files()))

    def _files(self) -> list[Path]:
        stores = (self._inbox, self._spool)
        files = (getattr(store, "file", None) for store in stores)
        return [file.path for file in files if file is not None]


def _selected(rules: Iterable[tuple[AlertRule, Callable[[Any], float | None]]], config: Alerts) -> Rules:
    selected: Rules = []
    for rule, value in rules:
        threshold = config.thresholds.get(rule.name, rule.threshold)
        if threshold is not None and threshold is not False:
            selected.append((rule if threshold == rule.threshold else rule.at(threshold), value))
    return selected


def _fullest(files: Iterable[Path]) -> float | None:
    shares = []
    for file in files:
        try:
            usage = shutil.disk_usage(os.path.dirname(file) or ".")  # noqa: PTH120
        except OSError:
            continue
        shares.append(1.0 - usage.free / usage.total if usage.total else 0.0)
    return max(shares, default=None)


def callback_names(callbacks: Iterable[Notifier]) -> dict[str, Notifier]:
    """Return callbacks by names that are the same in every process: their qualified names, numbered if equal."""
    named: dict[str, Notifier] = {}
    for callback in callbacks:
        name = getattr(callback, "__qualname__", type(callback).__qualname__)
        number = 1
        unique = f"on_alert:{name}"
        while unique in named:
            number += 1
            unique = f"on_alert:{name}:{number}"
        named[unique] = callback
    return named
