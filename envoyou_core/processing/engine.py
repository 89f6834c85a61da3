"""What works on an inbox: which events it takes, how it holds them, what it keeps of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from envoyou_core.errors import ConfigurationError
from envoyou_core.handlers import Handlers
from envoyou_core.inbox.protocol import Inbox
from envoyou_core.inbox.records import Claim, Progress, Settlement, Status
from envoyou_core.observability.notices import HouseKept, Notices
from envoyou_core.processing.attempt import Attempt, Settle
from envoyou_core.processing.hooks import Hooks
from envoyou_core.processing.pauses import Pauses
from envoyou_core.processing.retention import Retention, RetentionReport
from envoyou_core.processing.retry import RetryPolicy
from envoyou_core.processing.selection import selections
from envoyou_core.steps import Call, Flow, Step

__all__ = ["Engine", "Surroundings"]

Result = TypeVar("Result")

SUSPECT_AFTER = 2
"""Crashes. One befalls whatever is in hand at a deploy; all of that may be taken up again at once."""

Surroundings = Callable[[], AbstractContextManager[object]]
"""Makes what a framework needs around work outside a request, such as Flask's application context."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Runs events through their handlers.

    Attributes:
        inbox: where events come from.
        handlers: who handles them.
        retry: when a failed one is tried again.
        notices: who is told.
        lease: seconds that a claim is held; a live worker renews it long before it ends.
        pauses: what is not to be claimed for a while.
        retention: how long finished events are kept; `None` for ever.
        surroundings: entered around every handler and every call of the inbox.
        hooks: called when an event is dead.
        thread_ends: called in each of a worker's threads as it ends.
    """

    inbox: Inbox
    handlers: Handlers
    retry: RetryPolicy
    notices: Notices
    lease: float
    pauses: Pauses
    retention: Retention | None = None
    surroundings: list[Surroundings] = field(default_factory=list)
    hooks: Hooks = field(default_factory=Hooks)
    thread_ends: list[Callable[[], object]] = field(default_factory=list)
    _turns: Iterator[int] = field(default_factory=itertools.count)

    def check_handlers(self) -> None:
        """Refuse to begin without anything to do.

        Raises:
            ConfigurationError: there is no handler: a worker would set every event aside as ignored.
        """
        if not len(self.handlers):
            raise ConfigurationError(
                f"the worker of {self.inbox.name!r} has no handlers, and would set every event aside as ignored: "
                "register them before it starts, or use handoff='manual' where another process does the work"
            )

    # Taking and holding

    def claim(self, free: int, in_hand: Sequence[Claim] = ()) -> list[Claim]:
        """Take up to `free` due events that nothing holds back, beside those `in_hand`."""
        return self.within_surroundings(lambda: self._claim(free, in_hand))

    def _claim(self, free: int, in_hand: Sequence[Claim]) -> list[Claim]:
        claims: list[Claim] = []
        paused = self.pauses.subjects()
        # None of the parts is always the last one to be asked for.
        first, parts = next(self._turns), 1
        part = 0
        while part < parts and len(claims) < free:
            types = [claim.event.type for claim in (*in_hand, *claims)]
            rooms = selections(self.handlers, paused, types, free - len(claims))
            parts = len(rooms)
            room = rooms[(first + part) % parts]
            part += 1
            if room.limit > 0:
                try:
                    claims += self.inbox.claim(room.limit, self.lease, room.selection)
                except Exception:
                    if not claims:
                        raise
                    break
        return claims

    def seconds_until_due(self) -> float | None:
        """How long until the next event is due; `None` when none will be."""
        return self.within_surroundings(self.inbox.seconds_until_due)

    def renew(self, claims: list[Claim]) -> None:
        """Hold `claims` for another lease."""
        self.within_surroundings(lambda: self.inbox.renew(claims, self.lease))

    def give_back(self, claim: Claim, progress: Mapping[str, Progress], *, retry_in: float = 0.0) -> None:
        """End a claim that was not worked on, or not to the end; it costs neither an attempt nor a crash.

        Args:
            claim: what was held.
            progress: the handlers that will not run again, those of the broken off attempt among them.
            retry_in: seconds until it is due again.
        """
        settlement = Settlement(
            status=Status.FAILED if claim.attempts else Status.RECEIVED,
            attempts=claim.attempts,
            progress=progress,
            retry_in=retry_in,
        )
        self.settle(claim, settlement)

    def is_suspect(self, claim: Claim) -> bool:
        """Whether it was in hand so often when a process died that it must be kept apart from others like it.

        What is in hand together is taken up again together: the one that kills its process would take the same others
        with it each time, until they were dead of its crashes.
        """
        return 0 < min(SUSPECT_AFTER, self.retry.max_crashes - 1) <= claim.crashes < self.retry.max_crashes

    # Working

    def attempt(
        self, claim: Claim, progress: dict[str, Progress] | None = None, settle: Settle | None = None
    ) -> Flow[Settlement | None]:
        """Run what is left to run of `claim` and settle it; `None` when the lease was lost meanwhile.

        Args:
            claim: what is held.
            progress: what is known of the claim's handlers; it grows while the attempt goes on, for whoever may break
                it off.
            settle: makes the step that settles it; by default one that does so by itself.
        """
        known = dict(claim.progress) if progress is None else progress
        return Attempt(self, claim, known, settle or self._settling).run()

    def _settling(self, claim: Claim, settlement: Settlement) -> Step:
        return Call(lambda: self.settle(claim, settlement))

    def settle(self, claim: Claim, settlement: Settlement) -> bool:
        """End an attempt; false when the lease was lost."""
        return self.within_surroundings(lambda: self.inbox.settle(claim, settlement))

    def settle_all(self, settlements: Sequence[tuple[Claim, Settlement]]) -> list[bool]:
        """End several attempts in one transaction; false for each whose lease was lost."""
        return self.within_surroundings(lambda: self.inbox.settle_all(settlements))

    def keep_house(self) -> RetentionReport | None:
        """Clear what is kept for longer than the retention says; `None` where everything is kept."""
        retention = self.retention
        if retention is None:
            return None
        report = self.within_surroundings(lambda: retention.apply(self.inbox))
        if report.scrubbed or report.pruned or report.marks:
            self.notices.emit(HouseKept(self.inbox.name, report.scrubbed, report.pruned, report.marks))
        return report

    # What a framework needs around it

    def end_thread(self) -> None:
        """Let go of what belongs to the calling thread, which is one of a worker's and ends now."""
        for end in self.thread_ends:
            end()

    def within_surroundings(self, function: Callable[[], Result]) -> Result:
        """Call `function` with all that the framework needs around it."""
        with self.entered_surroundings():
            return function()

    @contextmanager
    def entered_surroundings(self) -> Iterator[None]:
        """All that the framework needs, for the length of a block."""
        with ExitStack() as stack:
            for surroundings in self.surroundings:
                stack.enter_context(surroundings())
            yield
