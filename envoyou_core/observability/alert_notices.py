"""Notices about alerts."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from envoyou_core.observability.notice import Notice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envoyou_core.alerts.states import Alert

__all__ = ["AlertFired", "AlertNotSent", "AlertResolved", "AlertsNotEvaluated"]


@dataclass(frozen=True, slots=True)
class AlertFired(Notice):
    """An alert has fired.

    Attributes:
        name: the name of the `Webhooks`.
        rule: the name of the rule.
        value: the observed value.
        threshold: the value above which it fires.
        text: what happened, in one line.
        host: the machine that it concerns; empty if it concerns all.
    """

    level: ClassVar[int] = logging.ERROR
    template: ClassVar[str] = "alert %(rule)s of %(name)s fired%(place)s: %(text)s"

    name: str
    rule: str
    value: float
    threshold: float
    text: str
    host: str = ""

    @classmethod
    def of(cls, alert: Alert) -> Self:
        """Return the notice of an alert."""
        return cls(alert.name, alert.rule, alert.value, alert.threshold, alert.text, alert.host)

    def arguments(self) -> Mapping[str, object]:
        """See `Notice.arguments`."""
        return {**self.fields(), "place": _place(self.host)}


@dataclass(frozen=True, slots=True)
class AlertResolved(Notice):
    """An alert has resolved. The fields are those of `AlertFired`."""

    level: ClassVar[int] = logging.WARNING
    template: ClassVar[str] = "alert %(rule)s of %(name)s resolved%(place)s: %(text)s"

    name: str
    rule: str
    value: float
    threshold: float
    text: str
    host: str = ""

    @classmethod
    def of(cls, alert: Alert) -> Self:
        """Return the notice of an alert."""
        return cls(alert.name, alert.rule, alert.value, alert.threshold, alert.text, alert.host)

    def arguments(self) -> Mapping[str, object]:
        """See `Notice.arguments`."""
        return {**self.fields(), "place": _place(self.host)}


@dataclass(frozen=True, slots=True)
class AlertsNotEvaluated(Notice):
    """The alerts could not be evaluated; it is tried again within seconds. At the level DEBUG, because it repeats."""

    level: ClassVar[int] = logging.DEBUG
    template: ClassVar[str] = "alerts of %(name)s were not evaluated: %(detail)s"

    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class AlertNotSent(Notice):
    """An alert could not be sent. `retry_in` is in seconds, `None` if it is not tried again."""

    level: ClassVar[int] = logging.ERROR
    template: ClassVar[str] = "alert %(rule)s of %(name)s was not sent to %(notifier)s%(retry)s: %(detail)s"

    name: str
    rule: str
    notifier: str
    detail: str
    retry_in: float | None

    def arguments(self) -> Mapping[str, object]:
        """See `Notice.arguments`."""
        retry = ", giving up" if self.retry_in is None else f", retrying in {self.retry_in:g} s"
        return {**self.fields(), "retry": retry}


def _place(host: str) -> str:
    return f" on {host}" if host else ""
