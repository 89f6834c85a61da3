"""The states of all alerts of an inbox, as they are stored, and how an evaluation changes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from envoyou_core.alerts.observation import Baseline
from envoyou_core.alerts.rules import AlertRule, RuleState, next_state

__all__ = ["MAX_TRIES", "Alert", "AlertStates", "Unsent", "evaluate"]

MAX_TRIES: Final = 10
"""How often a notification is tried, once at each evaluation."""

Observed = TypeVar("Observed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert that has fired or resolved.

    Attributes:
        rule: the name of its rule, such as `dead_letters`.
        is_firing: whether it has fired; otherwise it has resolved.
        name: the name of the `Webhooks`.
        host: the machine that it concerns; empty if it concerns all.
        value: the value that was observed.
        threshold: the value above which it fires.
        at: when it was evaluated, in UTC.
        fired_at: when it fired, in UTC.
        text: what happened, in one line.
    """

    rule: str
    is_firing: bool
    name: str
    host: str = ""
    value: float
    threshold: float
    at: datetime
    fired_at: datetime
    text: str

    @property
    def title(self) -> str:
        """One line: the inbox, the rule, and whether it has fired or resolved."""
        place = f" on {self.host}" if self.host else ""
        return f"EnvoyOU webhooks ({self.name}){place}: {self.rule} {'FIRING' if self.is_firing else 'resolved'}"


@dataclass(frozen=True, slots=True)
class Unsent:
    """A notification that has not been delivered.

    Attributes:
        alert: the alert.
        notifier: the name of the notifier.
        tries: how often it was tried.
    """

    alert: Alert
    notifier: str
    tries: int = 0


@dataclass(frozen=True, slots=True)
class AlertStates:
    """Everything about alerts that outlives a process.

    Attributes:
        rules: the state of each rule by its name.
        unsent: the notifications that are still to be delivered.
        last_delivery: when the last delivery was seen, in epoch seconds.
        baseline: what is usual.
        host: the machine that they concern; empty if they concern all.
    """

    rules: Mapping[str, RuleState] = field(default_factory=dict)
    unsent: tuple[Unsent, ...] = ()
    last_delivery: float | None = None
    baseline: Baseline | None = None
    host: str = ""

    def encode(self) -> str:
        """Return the states as they are stored."""
        return json.dumps(asdict(self), default=_encode)

    @classmethod
    def decode(cls, stored: str) -> AlertStates:
        """Read stored states. What another release has written and this one cannot read is forgotten."""
        try:
            document = json.loads(stored)
            baseline = document["baseline"]
            return cls(
                {name: RuleState(**state) for name, state in document["rules"].items()},
                tuple(
                    Unsent(_alert(unsent["alert"]), unsent["notifier"], unsent["tries"])
                    for unsent in document["unsent"]
                ),
                document["last_delivery"],
                None
                if baseline is None
                else Baseline(baseline["computed_at"], baseline["gap"], tuple(baseline["volumes"])),
                document.get("host", ""),
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls()


def evaluate(
    states: AlertStates,
    rules: Iterable[tuple[AlertRule, Callable[[Observed], float | None]]],
    observed: Observed,
    now: float,
    *,
    name: str,
    host: str = "",
    notifiers: Sequence[str] = (),
) -> tuple[AlertStates, list[Alert]]:
    """Return the states after an evaluation, and the alerts that have fired or resolved in it.

    The state of a rule that is not evaluated any more is dropped.

    Args:
        states: the states before.
        rules: the rules, and how each finds its value in `observed`.
        observed: what was observed.
        now: epoch seconds.
        name: of the `Webhooks`.
        host: the machine that the rules concern, if they concern one.
        notifiers: the names of those to whom each alert is sent.
    """
    changed: dict[str, RuleState] = {}
    alerts: list[Alert] = []
    for rule, value_in in rules:
        before = states.rules.get(rule.name, RuleState())
        after = changed[rule.name] = next_state(rule, before, value_in(observed), now)
        if before.is_firing != after.is_firing:
            fired_at = before.fired_at if after.fired_at is None else after.fired_at
            alerts.append(
                Alert(
                    rule=rule.name,
                    is_firing=after.is_firing,
                    name=name,
                    host=host,
                    value=after.value,
                    threshold=rule.threshold,
                    at=datetime.fromtimestamp(now, UTC),
                    fired_at=datetime.fromtimestamp(now if fired_at is None else fired_at, UTC),
                    text=rule.text(after.value),
                )
            )
    unsent = (*states.unsent, *(Unsent(alert, notifier) for alert in alerts for notifier in notifiers))
    return replace(states, rules=changed, unsent=unsent, host=host), alerts


def _encode(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"cannot store a {type(value).__name__}")


def _alert(document: dict[str, Any]) -> Alert:
    times = {key: datetime.fromisoformat(document[key]) for key in ("at", "fired_at")}
    return Alert(**{**document, **times})
