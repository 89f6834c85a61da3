"""Holds the platform's record against the application's inbox. Values in, values out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from envoyou_core.event import Event
from envoyou_core.inbox import FINISHED, HandlerStatus, InboxRecord, Status
from envoyou_core.simulator.outbox import Attempt
from envoyou_core.storm.forgeries import ForgeryAnswer

__all__ = ["REFUSALS", "Finding", "Outcome", "compare"]

REFUSALS: Final = frozenset({400, 401, 403})
"""The statuses that refuse a forgery. Another one, such as 404, shows that it was not checked."""

ACCEPTED = "accepted"
DEAD = "dead"
DOUBLED = "doubled"
LOST = "lost"
UNCLEAR = "unclear"
UNDELIVERED = "undelivered"
UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with one event.

    Attributes:
        kind: `lost`, `doubled`, `accepted` (a forgery), `unclear` (a forgery without a refusal), `undelivered`,
            `unfinished` or `dead`.
        event_id: the event's id.
        reason: what both records say.
    """

    kind: str
    event_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a storm.

    Attributes:
        sent: the number of genuine events.
        requests: the number of requests that delivered them.
        repeated: how many of these were answered as duplicates.
        unanswered: how many of these had no answer, for example because the server was killed.
        forged: the number of forgeries.
        refused: how many of these were refused.
        processed: the number of events whose handlers are done.
        ignored: the number of events without a handler.
        interrupted: the attempts of handlers that ended because the process died. Their handlers may have run twice,
            unless their work is in the inbox's transaction.
        findings: what is wrong.
    """

    sent: int
    requests: int
    repeated: int
    unanswered: int
    forged: int
    refused: int
    processed: int
    ignored: int
    interrupted: int
    findings: tuple[Finding, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def of_kind(self, kind: str) -> list[Finding]:
        """Return the findings of one kind."""
        return [finding for finding in self.findings if finding.kind == kind]


def compare(
    events: Sequence[Event],
    attempts: Sequence[Attempt],
    forgeries: Sequence[ForgeryAnswer],
    *,
    find: Callable[[str], InboxRecord | None],
    in_spool: Callable[[str], bool] = lambda _: False,
    effects: Sequence[str] | None = None,
) -> Outcome:
    """Compare what was sent and answered with what is in the inbox.

    Args:
        events: the genuine events.
        attempts: the platform's record of their deliveries.
        forgeries: the answers to the forgeries.
        find: returns the record of an event in the inbox.
        in_spool: whether an event is in the spool.
        effects: the ids of the events of each effect that the application reports; `None` if it reports none.
    """
    by_event: dict[str, list[Attempt]] = {event.id: [] for event in events}
    for attempt in attempts:
        by_event[attempt.event_id].append(attempt)
    records = {event.id: record for event in events if (record := find(event.id)) is not None}
    findings: list[Finding] = []
    for event_id, its_attempts in by_event.items():
        findings += _findings(event_id, its_attempts, records.get(event_id), is_waiting=in_spool(event_id))
    if effects is not None:
        findings += _effect_findings(events, records, Counter(effects))
    refused = [answer for answer in forgeries if answer.status in REFUSALS and find(answer.event_id) is None]
    findings += _forgery_findings([answer for answer in forgeries if answer not in refused], find)
    statuses = Counter(record.status for record in records.values())
    return Outcome(
        sent=len(events),
        requests=len(attempts),
        repeated=sum(_is_duplicate(attempt) for attempt in attempts),
        unanswered=sum(attempt.status is None for attempt in attempts),
        forged=len(forgeries),
        refused=len(refused),
        processed=statuses[Status.PROCESSED],
        ignored=statuses[Status.IGNORED],
        interrupted=sum(record.crashes for record in records.values()),
        findings=tuple(findings),
    )


def _findings(
    event_id: str, attempts: Sequence[Attempt], record: InboxRecord | None, *, is_waiting: bool
) -> Iterable[Finding]:
    accepted = [attempt for attempt in attempts if _is_success(attempt)]
    new = sum(_is_new(attempt) for attempt in attempts)
    if new > 1:
        yield Finding(DOUBLED, event_id, f"answered as a new event {new} times")
    if record is None:
        if is_waiting:
            yield Finding(UNFINISHED, event_id, "in the spool")
        elif accepted:
            yield Finding(LOST, event_id, f"answered {accepted[0].status}, and not in the inbox")
        else:
            last = attempts[-1] if attempts else None
            answer = "not sent" if last is None else f"last answer: {last.status or last.error}"
            yield Finding(UNDELIVERED, event_id, f"never answered 2xx in {len(attempts)} attempts; {answer}")
        return
    settled = [attempt.status for attempt in record.history if attempt.status == Status.PROCESSED]
    if len(settled) > 1:
        yield Finding(DOUBLED, event_id, f"processed {len(settled)} times, by its history in the inbox")
    if record.status not in FINISHED:
        reason = record.last_error or "its handlers have not run"
        yield Finding(UNFINISHED, event_id, f"{record.status} after {record.attempts} attempts: {reason}")
    elif record.status is Status.DEAD:
        yield Finding(DEAD, event_id, f"its handlers have failed: {record.last_error}")


def _effect_findings(
    events: Sequence[Event], records: Mapping[str, InboxRecord], effects: Counter[str]
) -> Iterable[Finding]:
    # A type without any effect is one whose handlers report none.
    reporting = {event.type for event in events if effects[event.id]}
    for event in events:
        record = records.get(event.id)
        if effects[event.id] > 1:
            yield Finding(DOUBLED, event.id, f"{effects[event.id]} effects reported by the application")
        elif not effects[event.id] and event.type in reporting and record is not None and _must_have_effect(record):
            yield Finding(LOST, event.id, "processed, and without an effect reported by the application")


def _must_have_effect(record: InboxRecord) -> bool:
    is_done = all(status is HandlerStatus.DONE for status in record.progress.values())
    return record.status is Status.PROCESSED and is_done


def _forgery_findings(answers: Iterable[ForgeryAnswer], find: Callable[[str], InboxRecord | None]) -> Iterable[Finding]:
    for answer in answers:
        said = "no answer" if answer.status is None else f"answered {answer.status}"
        # The kind is last: the redaction of secrets would remove a word after "secret:".
        if find(answer.event_id) is not None:
            yield Finding(ACCEPTED, answer.event_id, f"{said}, and in the inbox: {answer.kind}")
        elif answer.status is not None and 200 <= answer.status < 300:
            yield Finding(ACCEPTED, answer.event_id, f"{said}: {answer.kind}")
        else:
            yield Finding(UNCLEAR, answer.event_id, f"{said}, which refuses nothing: {answer.kind}")


def _is_success(attempt: Attempt) -> bool:
    return attempt.status is not None and 200 <= attempt.status < 300


def _is_new(attempt: Attempt) -> bool:
    return _is_success(attempt) and _answer(attempt) == {"received": True}


def _is_duplicate(attempt: Attempt) -> bool:
    return _is_success(attempt) and _answer(attempt).get("duplicate") is True


def _answer(attempt: Attempt) -> dict[str, object]:
    try:
        document = json.loads(attempt.answer)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
