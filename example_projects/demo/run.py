"""Has the deliveries made, follows their events in the inbox and compares the outcome with the expectations."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
from cases import PATH, Answer, Calls, Case, Effect, Page, Posted, Sent
from oncall import OnCall
from server import Server

from envoyou_core import EVENT_TYPES
from envoyou_core.inbox import FINISHED, Inbox, InboxRecord, Status
from envoyou_core.simulator import Platform

__all__ = ["Outcome", "Run"]

POLL_INTERVAL = 0.05
REQUEST_TIMEOUT = 10.0
CLOCK_SLACK = 0.05
"""Seconds. The server uses the system clock, this process a monotonic one."""


@dataclass
class Outcome:
    """The state of one case.

    Attributes:
        event_id: the id of the event; empty before the delivery.
        answer: what the server answered; `None` before it did.
        record: the event as the inbox holds it.
        last_error: what the inbox said last of a failed attempt, also after a later one succeeded.
        faults: differences from the expectations; `None` until they are known.
    """

    case: Case
    event_id: str = ""
    answer: Answer | None = None
    record: InboxRecord | None = None
    last_error: str | None = None
    faults: list[str] | None = None

    @property
    def settled(self) -> bool:
        """Whether the case has reached its final state."""
        if self.answer is None:
            return False
        if self.case.kept is None:
            return True
        return self.record is not None and self.record.status in FINISHED


@dataclass
class Run:
    """One demonstration: `go` runs it, the other members show its progress.

    Attributes:
        cases: the deliveries and their expected outcomes.
        server: the server under test.
        platform: the local EnvoyOU, at which the server's URL is registered.
        inbox: the inbox, opened by this process.
        on_call: the service that handlers call.
        patience: seconds that handlers may take after the last delivery.
        changed: called when an attempt has failed, and when a case has ended.
        outcomes: the state of each case.
        faults: differences that do not concern a single case.
        seconds: how long it took; zero before the end.
    """

    cases: list[Case]
    server: Server
    platform: Platform
    inbox: Inbox
    on_call: OnCall
    patience: float
    changed: Callable[[Outcome], None] = lambda _: None
    outcomes: list[Outcome] = field(init=False)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.outcomes = [Outcome(case) for case in self.cases]

    @property
    def as_promised(self) -> bool:
        """Whether all outcomes are as expected; false until that is known."""
        return not self.faults and all(outcome.faults == [] for outcome in self.outcomes)

    def go(self, *, pause: float) -> None:
        """Deliver everything, `pause` seconds apart, and wait until every event has come to its end.

        Raises:
            ServerError: the server is gone.
        """
        began = time.monotonic()
        with httpx2.Client(base_url=self.server.url, timeout=REQUEST_TIMEOUT, trust_env=False) as client:
            event_id = ""
            for outcome in self.outcomes:
                self.on_call.fail_first(outcome.case.type, outcome.case.failures)
                event_id = self._deliver(client, outcome, event_id)
                self._follow(client, until=time.monotonic() + pause)
            self._follow(client, until=time.monotonic() + self.patience)
            # Check everything again, because a superfluous call may come late.
            for outcome in self.outcomes:
                self._look(outcome)
                outcome.faults = list(self._differences(client, outcome))
            self.faults = list(self._differences_in_all())
        self.seconds = time.monotonic() - began
        self.inbox.close()

    def _deliver(self, client: httpx2.Client, outcome: Outcome, event_id_before: str) -> str:
        """Have one delivery made, and return the id of its event."""
        case = outcome.case
        if isinstance(case.source, Posted):
            outcome.event_id = case.source.event.id
            outcome.answer = _post(client, case.source)
            return outcome.event_id
        if isinstance(case.source, Sent):
            [outcome.event_id] = self.platform.send(case.type, object=case.source.object)
        else:
            outcome.event_id = event_id_before
            self.platform.resend(outcome.event_id)
        outcome.answer = self._answer_to_platform(outcome.event_id)
        return outcome.event_id

    def _answer_to_platform(self, event_id: str) -> Answer:
        """Wait for the platform's delivery, with its retries, and return the last answer."""
        try:
            self.platform.wait_until_idle(REQUEST_TIMEOUT)
        except TimeoutError:
            return Answer(0, {"error": "not delivered"})
        attempt = self.platform.attempts(event_id)[-1]
        if attempt.status is None:
            return Answer(0, {"error": attempt.error})
        return _answer(attempt.status, attempt.answer)

    def _follow(self, client: httpx2.Client, *, until: float) -> None:
        while True:
            self.server.check()
            for outcome in self.outcomes:
                if outcome.answer is not None and outcome.faults is None:
                    self._look(outcome)
                    if outcome.settled:
                        outcome.faults = list(self._differences(client, outcome))
                        self.changed(outcome)
            if time.monotonic() >= until or all(outcome.settled for outcome in self.outcomes):
                return
            time.sleep(POLL_INTERVAL)

    def _look(self, outcome: Outcome) -> None:
        before, record = outcome.record, self.inbox.get(outcome.event_id)
        outcome.record = record
        if record is None:
            return
        if record.last_error is not None:
            outcome.last_error = record.last_error
        if record.status is Status.FAILED and (before is None or before.attempts != record.attempts):
            self.changed(outcome)

    def _differences(self, client: httpx2.Client, outcome: Outcome) -> Iterator[str]:
        case, answer, record = outcome.case, outcome.answer, outcome.record
        if answer != case.answer:
            yield f"answered {_told(answer)}, promised {_told(case.answer)}"
        if case.kept is None:
            if record is not None:
                yield f"in the inbox as {record.status}, promised not to be there"
        elif record is None:
            yield f"not in the inbox, promised {case.kept.status}"
        elif (record.status, record.attempts) != (case.kept.status, case.kept.attempts):
            yield (
                f"{record.status} at attempt {record.attempts}, "
                f"promised {case.kept.status} at attempt {case.kept.attempts}"
            )
        for effect in case.effects:
            yield from self._missing(client, outcome.event_id, effect)

    def _missing(self, client: httpx2.Client, event_id: str, effect: Effect) -> Iterator[str]:
        if isinstance(effect, Page):
            response = client.get(effect.path)
            found = response.json() if response.is_success else None
            if not _says(found, effect.says):
                yield f"{effect.path} says {_page(found)}, promised {_page(effect.says)}"
            return
        calls = self.on_call.calls(event_id)
        answers = tuple(call.status for call in calls)
        if answers != effect.answers:
            yield f"the on-call service was called and answered {_list(answers)}, promised {_list(effect.answers)}"
            return
        yield from self._too_soon(calls, effect)

    def _too_soon(self, calls: list[Any], effect: Calls) -> Iterator[str]:
        for number, promised in enumerate(effect.waits, start=1):
            waited = calls[number].at - calls[number - 1].at
            if waited < promised - CLOCK_SLACK:
                yield f"attempt {number + 1} came after {waited:.2f} s, promised {promised:g} s"

    def _differences_in_all(self) -> Iterator[str]:
        events = {outcome.event_id for outcome in self.outcomes if outcome.case.kept is not None}
        held = self.inbox.stats(exact=True).total
        if held != len(events):
            yield f"the inbox holds {held} events, promised {len(events)}"
        missing = [type for type in EVENT_TYPES if type not in self.processed_types]
        if missing:
            yield f"no event was processed of {', '.join(missing)}"

    @property
    def processed_types(self) -> set[str]:
        """The event types of which an event was processed."""
        records = (outcome.record for outcome in self.outcomes)
        return {record.event.type for record in records if record is not None and record.status is Status.PROCESSED}

    @property
    def waiting(self) -> InboxRecord | None:
        """The event whose next attempt is furthest away."""
        failed = [o.record for o in self.outcomes if o.record is not None and o.record.status is Status.FAILED]
        return max(failed, key=lambda record: record.next_attempt_at or record.received_at, default=None)


def _post(client: httpx2.Client, source: Posted) -> Answer:
    try:
        response = client.post(PATH, content=source.delivery.body, headers=source.delivery.headers)
    except httpx2.TransportError as error:
        return Answer(0, {"error": type(error).__name__})
    return _answer(response.status_code, response.text)


def _answer(status: int, text: str) -> Answer:
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    return Answer(status, body if isinstance(body, Mapping) else {"error": "not a JSON object"})


def _says(found: Any, promised: Any) -> bool:
    """Whether `found` holds all that was promised; a list must be as long as promised."""
    if isinstance(promised, Mapping):
        return isinstance(found, Mapping) and promised.items() <= found.items()
    if isinstance(promised, list):
        same_length = isinstance(found, list) and len(found) == len(promised)
        return same_length and all(_says(*pair) for pair in zip(found, promised, strict=True))
    return bool(found == promised)


def _told(answer: Answer | None) -> str:
    return "nothing" if answer is None else f"{answer.status} {json.dumps(dict(answer.body))}"


def _page(found: Any) -> str:
    return "nothing" if found is None else json.dumps(found)


def _list(answers: tuple[int, ...]) -> str:
    return ", ".join(map(str, answers)) or "nothing"
