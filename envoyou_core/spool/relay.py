"""Moves events from the spool to the inbox once the inbox is up again. Until then no request waits for the inbox.

An event leaves the spool only after the inbox has committed it. A crash in between leaves the event in both, and its
unique key makes it a duplicate when it is moved again. The same is true of a commit that succeeded although its answer
came too late. If the event has died in the inbox meanwhile, it gets new attempts, as after a redelivery. The order of
events across an outage is not kept.

An error alone does not tell whether the inbox is down or refuses this one event. Another event that gets through
afterwards tells: the inbox is up, so an event that fails again is refused. A refused event stays in the spool, is
reported, and is retried after increasing delays. Until then its failure only suggests that the inbox is down.

The state of the inbox is not a `CircuitBreaker`, although both save callers from waiting for a service that is down. A
breaker lets a caller try again after a pause. Here a request must not be the one that tries, because it has the spool.
Only the thread of the relay probes the inbox, with one event that is already safe on disk, and a success that another
thread reports wakes it. An outage also lasts longer than an open circuit: until no spooled event is due any more.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from envoyou_core.errors import InvalidPayloadError, describe
from envoyou_core.inbox.handler_sets import HandlerSet
from envoyou_core.inbox.processes import QUIET_INTERVAL, Presence
from envoyou_core.inbox.protocol import WorkerInbox
from envoyou_core.inbox.records import Added, Claim, ClaimFilter, NewEvent, Settlement, Status
from envoyou_core.observability.notices import Notices
from envoyou_core.observability.storage_notices import InboxDown, InboxUp, MoveRefused, SpoolFailed
from envoyou_core.observability.worker_notices import LeasesEnded
from envoyou_core.spool.rejections import move_rejected
from envoyou_core.worker.failures import private_texts
from envoyou_core.worker.recovery import RECOVERY_INTERVAL, Recovery

if TYPE_CHECKING:
    from envoyou_core.spool.spool import Spool

Outcome = tuple[Claim, Added | Exception]

__all__ = ["SpoolRelay"]

PROBE_INTERVAL = 1.0
"""Seconds between two attempts to reach an inbox that is down, each with one event."""

SWEEP_INTERVAL = 10.0
"""Seconds after which an idle relay polls the spool, because another process may have left events there."""

MOVE_TIMEOUT = 3.0
"""Seconds within which the inbox must answer for a batch."""

LEASE = 10.0
"""Seconds for which a batch is leased. The lease may expire: an event that is moved twice is a duplicate. It ends early
if its process was of this machine and is gone."""

BATCH = 100

FIRST_PAUSE = 5.0
MAX_PAUSE = 3600.0
"""Seconds before an event that the inbox refuses is retried: the delay doubles each time."""

MAX_RETRY = 30.0
"""Seconds before a spool that fails is polled again."""


class SpoolRelay:
    """Moves events from the spool to the inbox, in one daemon thread per process, and knows whether the inbox is down.

    Each process finds that out by itself. The inbox is down from its first failure or late answer until an event has
    reached it.

    Args:
        spool: where events wait.
        inbox: where events are moved to.
        name: of the `Webhooks`.
        presence: this process, which is listed in the spool before it claims.
        notices: the stream to which outages and refused events are reported.
        in_context: calls a function within everything that the framework requires around database access.
        run_thread_exit_hooks: called in the thread before it ends.
        on_moved: called with the id of each event that the inbox did not have.
    """

    def __init__(
        self,
        spool: Spool,
        inbox: WorkerInbox,
        *,
        name: str,
        presence: Presence,
        notices: Notices,
        in_context: Callable[[Callable[[], Any]], Any],
        run_thread_exit_hooks: Callable[[], object],
        on_moved: Callable[[str], object],
    ) -> None:
        self.spool = spool
        self._inbox = inbox
        self._name = name
        self._notices = notices
        self._in_context = in_context
        self._run_thread_exit_hooks = run_thread_exit_hooks
        self._on_moved = on_moved
        self._presence = presence
        self._recovery = Recovery(spool, presence)
        self._states: dict[int, _State] = {}

    @property
    def inbox_is_down(self) -> bool:
        """Whether events should be stored in the spool first."""
        return self._state.down

    def inbox_failed(self, error: Exception) -> None:
        """Record that an event could not be stored in the inbox."""
        state = self._state
        with state.lock:
            outage_begins = not state.outage
            if outage_begins:
                state.outage, state.moved_before = True, state.moved
            state.down, state.reached = True, False
        if outage_begins:
            self._notices.emit(InboxDown(self._name, describe(error)))

    def inbox_answered(self) -> None:
        """Record that an event was stored in the inbox."""
        state = self._state
        if state.outage and not state.reached:
            with state.lock:
                state.down, state.reached = False, True
            state.wake.set()

    def start(self) -> None:
        """Start the thread if this process has none; it polls the spool at once.

        A failure is reported and not raised: the events are safe in the spool, and the next event tries again.
        """
        state = self._state
        if state.stop is not None:
            return
        with state.lock:
            if state.stop is None:
                stop = threading.Event()
                thread = threading.Thread(
                    target=self._run, args=(state, stop), name=f"envoyou-spool-{self._name}", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError as error:
                    self._notices.emit(SpoolFailed(self._name, describe(error), PROBE_INTERVAL))
                else:
                    state.thread, state.stop = thread, stop

    def event_spooled(self) -> None:
        """Record that an event was stored in the spool, and wake the thread unless the inbox is down."""
        self.start()
        self._state.spooled = True
        self._state.wake.set()

    def stop(self, timeout: float) -> None:
        """End the thread and wait for it. Events that are not moved yet stay in the spool.

        Args:
            timeout: seconds to wait. A batch that is still being moved then becomes due when its lease expires.
        """
        state = self._state
        with state.lock:
            thread, stop = state.thread, state.stop
            state.thread = state.stop = None
        if thread is not None and stop is not None:
            stop.set()
            state.wake.set()
            thread.join(timeout)

    def move_due(self) -> None:
        """Move the events that are due now, in the calling thread, until the inbox is down or none is left.

        Raises:
            ConfigurationError: the spool cannot be opened.
        """
        state = self._state
        while self._move_batch(state) == 0:
            pass

    @property
    def _state(self) -> _State:
        pid = os.getpid()
        return self._states.get(pid) or self._states.setdefault(pid, _State())

    def _run(self, state: _State, stop: threading.Event) -> None:
        retry = PROBE_INTERVAL
        while not stop.is_set():
            state.wake.clear()
            try:
                pause = self._move_batch(state)
            except Exception as error:
                self._notices.emit(SpoolFailed(self._name, describe(error), retry))
                stop.wait(retry)
                retry = min(2 * retry, MAX_RETRY)
            else:
                retry = PROBE_INTERVAL
                # Events that are spooled during an outage must not increase the rate of the probes.
                (stop if state.down else state.wake).wait(pause)
        self._run_thread_exit_hooks()

    def _move_batch(self, state: _State) -> float:
        """Move some events. Return the seconds until the next poll, zero if there may be more events."""
        with state.moving:
            until_due = self.spool.seconds_until_due()
            if until_due is None and state.spooled:
                # Whichever process has moved the events has reached the inbox, so it is worth another attempt.
                state.down = state.spooled = False
            if until_due is None or until_due > 0:
                self._end_outage(state)
                if not state.down:
                    self._in_context(lambda: move_rejected(self.spool, self._inbox, MOVE_TIMEOUT))
                return self._wait_for_leases(state, until_due)
            process = self._list_process(state)
            claims = self.spool.claim(1 if state.down else BATCH, LEASE, ClaimFilter(process_id=process))
            readable = self._postpone_unreadable(claims)
            if readable:
                sets = self.spool.handler_sets({claim.accepted_set for claim in readable if claim.accepted_set})
                outcomes: list[Outcome] = self._in_context(lambda: self._add_all(readable, sets))
                self._conclude(state, outcomes)
            return PROBE_INTERVAL if state.down or not claims else 0.0

    def _wait_for_leases(self, state: _State, until_due: float | None) -> float:
        """End the leases of processes that are gone. Return the seconds until the next poll, zero if there were any."""
        longest = PROBE_INTERVAL if state.down else SWEEP_INTERVAL
        if until_due is None:
            return longest
        if self._recovery.is_due:
            ended, gone = self._recovery.run()
            if ended:
                self._notices.emit(LeasesEnded(self.spool.name, ended, ", ".join(str(process.pid) for process in gone)))
                return 0.0
        # What is due that soon may be leased.
        return min(until_due, RECOVERY_INTERVAL if until_due <= LEASE else longest)

    def _list_process(self, state: _State) -> str:
        """List this process in the spool, unless that was done recently, and return its id."""
        process = self._presence.process
        now = time.monotonic()
        if now - state.listed_at >= QUIET_INTERVAL:
            self.spool.beat(process)
            self.spool.prune_processes()
            state.listed_at = now
        return process.id

    def _end_outage(self, state: _State) -> None:
        with state.lock:
            outage_ends = state.outage and state.reached
            state.outage = state.outage and not outage_ends
        if outage_ends:
            self._notices.emit(InboxUp(self._name, state.moved - state.moved_before))

    def _add_all(self, claims: list[Claim], sets: Mapping[str, HandlerSet]) -> list[Outcome]:
        deadline = time.monotonic() + MOVE_TIMEOUT
        futures: list[Future[Added]] = []
        for claim in claims:
            # An inbox that stores in the calling thread may have used up the time.
            if futures and time.monotonic() > deadline:
                break
            futures.append(self._add(claim, sets.get(claim.accepted_set or "")))
        wait(futures, timeout=max(0.0, deadline - time.monotonic()))
        results = [_result(future) for future in futures]
        untried = [_timeout() for _ in claims[len(futures) :]]
        return list(zip(claims, [*results, *untried], strict=True))

    def _add(self, claim: Claim, handlers: HandlerSet | None) -> Future[Added]:
        entry = NewEvent(
            claim.event,
            claim.tenant,
            claim.webhook_id,
            claim.received_at,
            handlers,
            headers=claim.headers,
            traceparent=claim.traceparent,
        )
        try:
            return self._inbox.add(entry)
        except Exception as error:
            failed: Future[Added] = Future()
            failed.set_exception(error)
            return failed

    def _conclude(self, state: _State, outcomes: list[Outcome]) -> None:
        """Remove the moved events from the spool, postpone the refused ones and release the others."""
        moved: list[Claim] = []
        undecided: list[Claim] = []
        errors: list[Exception] = []
        for claim, result in outcomes:
            if isinstance(result, Added):
                state.moved += 1
                state.moved_at_first_failure.pop(claim.key, None)
                moved.append(claim)
                if result.is_runnable:
                    self._on_moved(claim.event.id)
            elif not isinstance(result, TimeoutError) and state.is_refused(claim):
                self._postpone(claim, result)
            else:
                undecided.append(claim)
                errors.append(result)
        if moved:
            self.inbox_answered()
        elif errors:
            self.inbox_failed(errors[0])
        self.spool.remove(moved)
        self.spool.release(undecided)

    def _postpone_unreadable(self, claims: list[Claim]) -> list[Claim]:
        """Postpone the unreadable events and return the others."""
        for claim in claims:
            if claim.unreadable is not None:
                self._postpone(claim, InvalidPayloadError(f"the stored event is unreadable: {claim.unreadable}"))
        return [claim for claim in claims if claim.unreadable is None]

    def _postpone(self, claim: Claim, error: Exception) -> None:
        pause = min(FIRST_PAUSE * 2 ** min(claim.attempts, 10), MAX_PAUSE)
        description = describe(error, private=private_texts(claim.event))
        self.spool.settle(claim, Settlement(Status.FAILED, claim.attempts + 1, retry_in=pause, error=description))
        self._notices.emit(MoveRefused(claim.event.id, claim.event.type, description, pause))


@dataclass(slots=True)
class _State:
    """The state of one process. A forked child needs its own: it has no thread, and another may have held the locks.

    Attributes:
        moving: held while a batch is moved.
        lock: held while the other attributes are changed.
        wake: set when there may be events to move.
        stop: ends the thread; `None` if there is no thread.
        thread: the thread that moves events, or `None`.
        down: the inbox has failed, and no event has reached it since.
        spooled: this process has stored an event in the spool, and has not seen the spool empty since.
        outage: `InboxDown` was emitted, and `InboxUp` was not.
        reached: an event has reached the inbox since its last failure.
        moved: how many events were moved.
        moved_before: how many of them before the outage.
        moved_at_first_failure: by the key of an event that has failed, the value of `moved` at that moment.
        listed_at: when this process was listed in the spool, in seconds of `time.monotonic`.
    """

    moving: threading.Lock = field(default_factory=threading.Lock)
    lock: threading.Lock = field(default_factory=threading.Lock)
    wake: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event | None = None
    thread: threading.Thread | None = None
    down: bool = False
    spooled: bool = False
    outage: bool = False
    reached: bool = False
    moved: int = 0
    moved_before: int = 0
    moved_at_first_failure: dict[int, int] = field(default_factory=dict)
    listed_at: float = float("-inf")

    def is_refused(self, claim: Claim) -> bool:
        """Whether another event has reached the inbox since this one failed for the first time."""
        return claim.attempts > 0 or self.moved > self.moved_at_first_failure.setdefault(claim.key, self.moved)


def _result(future: Future[Added]) -> Added | Exception:
    # Prevents an insertion that has not begun. One that has may succeed late; the event is a duplicate then.
    future.cancel()
    if future.cancelled() or not future.done():
        return _timeout()
    error = future.exception()
    return error if isinstance(error, Exception) else future.result()


def _timeout() -> TimeoutError:
    return TimeoutError(f"the inbox did not answer within {MOVE_TIMEOUT:g} s")
