"""The state of one attempt at a claimed event, and the settlement that follows from it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from envoyou_core.errors import RetryLater
from envoyou_core.handler import Handler
from envoyou_core.inbox.history import Failure
from envoyou_core.inbox.owed import OwedElsewhere, next_wait, with_begun
from envoyou_core.inbox.records import Claim, HandlerStatus, Settlement, Status
from envoyou_core.retry import RetryPolicy
from envoyou_core.worker.failures import failure_of

__all__ = ["RunningAttempt"]


@dataclass(slots=True, eq=False)
class RunningAttempt:
    """One attempt at a claimed event.

    Attributes:
        claim: the claimed event.
        handlers: all handlers that match the event.
        retry: when to retry a failed event, unless its handlers have policies of their own.
        scrub_processed: whether to delete the payload once the event is processed.
        began: when the attempt began, in seconds of `time.monotonic`.
        progress: the handlers that will not run again. It grows while the attempt runs.
        is_recorded: whether the inbox knows this progress.
        errors: what the failed handlers raised, the latest last.
        failures: how they failed, as stored.
        is_fatal: whether the last handler of the last attempt has failed. Then the settlement reports how.
        delay: seconds until the failed handlers may run again: the longest delay of any of them.
        settlement: how the attempt ends; `None` while it runs, and if the lease was lost.
        is_settled: whether the transaction of the last handler has stored the settlement.
        is_interrupted: whether the database has interrupted the attempt, which then does not count.
        is_uncertain: whether a handler's transaction has failed at its end, and it is unknown whether it was committed.
        is_stale: whether an event created later has already been applied to the same object; `None` if unknown.
        begun: the handlers of this process that have begun in this attempt.
        elsewhere: the owed handlers that this process does not know; `None` if there are none.
        handler_wait: seconds for which the event may wait for a process that knows a handler.
        mentioned: the names of handlers in the event's row and in the set of the process that accepted it.
    """

    claim: Claim
    handlers: Sequence[Handler]
    retry: RetryPolicy
    scrub_processed: bool = False
    began: float = field(default_factory=time.monotonic)
    progress: dict[str, HandlerStatus] = field(init=False)
    is_recorded: bool = True
    errors: list[Exception] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    is_fatal: bool = False
    delay: float = 0.0
    settlement: Settlement | None = None
    is_settled: bool = False
    is_interrupted: bool = False
    is_uncertain: bool = False
    is_stale: bool | None = None
    begun: set[str] = field(default_factory=set)
    elsewhere: OwedElsewhere | None = None
    handler_wait: float = 0.0
    mentioned: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.progress = dict(self.claim.progress)
        if self.progress or self.claim.owed:
            self.mention((*self.claim.owed, *self.progress))
        for handler in self.handlers:
            # What was recorded under a former name counts, and is recorded under all names: a process of the former
            # release must not run the handler again either.
            if (status := handler.status_in(self.claim.progress)) is not None:
                self.progress |= dict.fromkeys(self.names_of(handler), status)

    @property
    def number(self) -> int:
        """The number of this attempt; the first one is 1."""
        return self.claim.attempts + 1

    @property
    def has_failures(self) -> bool:
        """Whether a handler has failed in this attempt or given up in an earlier one."""
        return bool(self.errors) or HandlerStatus.GIVEN_UP in self.progress.values()

    def owed(self, progress: Mapping[str, HandlerStatus] | None = None) -> dict[str, bool]:
        """Return the handlers that still have to run, in this process or another, and whether each has begun."""
        progress = self.progress if progress is None else progress
        own = {self.names_of(handler)[0]: handler.name in self.begun for handler in self.handlers}
        others = {} if self.elsewhere is None else self.elsewhere.owed
        begun = [name for name, has_begun in own.items() if has_begun]
        return with_begun({**own, **others, **self.claim.owed}, begun, progress)

    def names_of(self, handler: Handler) -> tuple[str, ...]:
        """Return the names under which the success of `handler` is recorded."""
        return handler.names_in(self.mentioned)

    def mention(self, names: Iterable[str]) -> None:
        """Note names of handlers under which another process knows handlers of this event."""
        self.mentioned = self.mentioned.union(names)

    def unfinished(self) -> list[Handler]:
        """Return the handlers that have to run."""
        return [handler for handler in self.handlers if handler.status_in(self.progress) is None]

    def with_done(self, handler: Handler) -> dict[str, HandlerStatus]:
        """Return the progress with `handler` done."""
        return {**self.progress, **dict.fromkeys(self.names_of(handler), HandlerStatus.DONE)}

    def skip(self, handler: Handler) -> None:
        """Note that `handler` does not run because the event is stale."""
        self.progress |= dict.fromkeys(self.names_of(handler), HandlerStatus.SKIPPED)

    def succeed(self, handler: Handler) -> None:
        """Note that `handler` has succeeded. If the inbox called `settle` in its transaction, that is committed now."""
        self.progress = self.with_done(handler)
        self.is_settled = self.settlement is not None
        if not handler.shares_transaction:
            self.is_recorded = False

    def fail(self, handler: Handler, error: Exception) -> Failure:
        """Note that `handler` has failed, and return how."""
        failure = failure_of(handler.name, error, self.claim.event)
        self.failures.append(failure)
        self.errors.append(error)
        if handler.gives_up_on(error) or self._is_exhausted(handler):
            self.progress |= dict.fromkeys(self.names_of(handler), HandlerStatus.GIVEN_UP)
            self.is_recorded = False
        elif isinstance(error, RetryLater):
            self.delay = max(self.delay, error.seconds)
        else:
            self.delay = max(self.delay, self._policy_of(handler).delay_after(self.number))
        return failure

    def will_retry(self, handler: Handler) -> bool:
        """Whether `handler`, which has failed, has attempts left."""
        has_attempts = self.number < self._policy_of(handler).max_attempts
        return has_attempts and handler.status_in(self.progress) is None

    @property
    def is_only_postponed(self) -> bool:
        """Whether the attempt ended because handlers requested a retry, and for no other reason."""
        return bool(self.errors) and all(isinstance(error, RetryLater) for error in self.errors)

    def _policy_of(self, handler: Handler) -> RetryPolicy:
        return handler.retry or self.retry

    def _is_exhausted(self, handler: Handler) -> bool:
        """Whether `handler` has had all attempts of its policy, and others may have more.

        If all handlers have the same policy, the event ends with the last attempt, and owes the handlers that failed.
        """
        if all(other.retry is None for other in self.handlers):
            return False
        return self.number >= self._policy_of(handler).max_attempts

    def interrupt(self, handler: Handler, error: Exception, delay: float, *, is_counted: bool) -> Settlement:
        """End the attempt because the database has failed.

        The attempt is not counted, not even if another handler has failed in it: that one runs again.

        Args:
            handler: the handler that was about to run, or was running.
            error: the exception.
            delay: seconds until the event is due again, unless a handler has requested more.
            is_counted: whether the interruption is counted, by the event's history.
        """
        failure = failure_of(handler.name, error, self.claim.event)
        self.is_interrupted = True
        self.settlement = Settlement(
            status=Status.FAILED if self.claim.attempts else Status.RECEIVED,
            attempts=self.claim.attempts,
            progress=self.progress,
            retry_in=max(delay, self.delay),
            error=f"the database failed: {failure.error}",
            seconds=time.monotonic() - self.began if is_counted else None,
            failures=(*self.failures, failure),
            owed=self.owed(),
            waits_since=self.claim.waits_since,
            interrupted=True,
        )
        return self.settlement

    def settle(self, progress: Mapping[str, HandlerStatus] | None = None) -> Settlement:
        """Determine how the attempt ends.

        Args:
            progress: the progress to store; by default that of the attempt. The inbox calls this at the end of the last
                handler's transaction, when the handler has succeeded but the transaction is not committed yet.
        """
        progress = self.progress if progress is None else progress
        self.settlement = self._outcome(progress, "; ".join(failure.error for failure in self.failures) or None)
        return self.settlement

    def settle_unreadable(self, reason: str) -> None:
        """Fail because no handler can run. Retries leave time for a newer release or an operator to fix the event."""
        error = f"the stored event is unreadable: {reason}"
        self.settlement = self._retried(
            self.claim.progress, error, self.retry.delay_after(self.number), self.retry.max_attempts
        )

    def settle_without_handlers(self) -> None:
        """End the attempt because this process has no handler for the event, which is ignored if no other has one."""
        self.settlement = replace(self._outcome(self.claim.progress, None), attempts=self.claim.attempts)

    def settle_crashed(self) -> None:
        """End the event, because worker processes have died with it too often."""
        error = f"the process died {self.claim.crashes} times while this event was being handled"
        self.settlement = Settlement(
            Status.DEAD, self.claim.attempts, self.claim.progress, error=error, owed=self.claim.owed
        )

    def _outcome(self, progress: Mapping[str, HandlerStatus], error: str | None) -> Settlement:
        remaining = [handler for handler in self.handlers if handler.status_in(progress) is None]
        if remaining:
            max_attempts = max(self._policy_of(handler).max_attempts for handler in remaining)
            return self._retried(progress, error, self.delay, max_attempts)
        if self.elsewhere is not None and self.elsewhere.binding:
            return self._left(self.elsewhere, progress, error)
        if HandlerStatus.GIVEN_UP in progress.values():
            return self._ended(Status.DEAD, progress, error or self.claim.last_error)
        if not progress:
            return Settlement(Status.IGNORED, self.claim.attempts, progress)
        return self._ended(Status.PROCESSED, progress, error, scrub=self.scrub_processed)

    def _left(self, elsewhere: OwedElsewhere, progress: Mapping[str, HandlerStatus], error: str | None) -> Settlement:
        """Leave handlers to processes that know them. That costs no attempt, and the earlier error stays."""
        left = elsewhere.binding
        attempts = self.number if self.failures else self.claim.attempts
        wait = next_wait(elsewhere, self.claim.waits_since, self.handler_wait, awaited=self.claim.waits_for)
        if wait is None:
            names = ", ".join(sorted(left))
            reason = f"no process with the handler {names} took the event within {self.handler_wait:g} s"
            earlier = error or self.claim.last_error
            reason = f"{reason}; earlier error: {earlier}" if earlier else reason
            return self._ended(Status.DEAD, progress, reason, attempts=attempts, owed=left)
        return Settlement(
            status=Status.FAILED if attempts else Status.RECEIVED,
            attempts=attempts,
            progress=progress,
            retry_in=wait.seconds,
            error=error or self.claim.last_error,
            seconds=time.monotonic() - self.began if self.failures else None,
            failures=tuple(self.failures),
            owed=left,
            waits_for=wait.handler,
            waits_since=wait.since,
        )

    def _retried(
        self, progress: Mapping[str, HandlerStatus], error: str | None, delay: float, max_attempts: int
    ) -> Settlement:
        owed = self.owed(progress)
        if self.number >= max_attempts:
            return self._ended(Status.DEAD, progress, error, owed=owed)
        return self._ended(Status.FAILED, progress, error, retry_in=delay, owed=owed)

    def _ended(
        self, status: Status, progress: Mapping[str, HandlerStatus], error: str | None, **fields: Any
    ) -> Settlement:
        values = {"attempts": self.number, **fields}
        return Settlement(
            status=status,
            progress=progress,
            error=error,
            seconds=time.monotonic() - self.began,
            failures=tuple(self.failures),
            **values,
        )
