"""What waits in the spool is moved to the inbox as soon as that is back, and until then nobody waits for the inbox.

An event leaves the spool only after the inbox has committed it. A crash in between leaves it in both, and its key makes
it a duplicate when it is moved again; so does a commit of which nobody had heard in time. Where the event has died in
the inbox meanwhile, it gets new attempts, as with a redelivery. The order of events across an outage is not kept.

An error alone does not tell whether the inbox is away or refuses this one event. What tells is another event that gets
through after it: the inbox is there, so an event that fails once more is refused. It stays in the spool, is reported,
and is tried again after longer and longer pauses. Until then it is no more than a sign that the inbox is away.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from envoyou_core.errors import InvalidPayloadError, describe
from envoyou_core.inbox.protocol import Inbox
from envoyou_core.inbox.records import Added, Claim, NewEvent, Settlement, Status
from envoyou_core.observability.notices import InboxDown, InboxUp, MoveRefused, Notices, SpoolFailed
from envoyou_core.worker.failures import private_texts

if TYPE_CHECKING:
    from envoyou_core.spool.spool import Spool

Outcome = tuple[Claim, Added | Exception]

__all__ = ["SpoolRelay"]

PROBE_INTERVAL = 1.0
"""Seconds between two attempts to reach an inbox that is away, each with one event."""

SWEEP_INTERVAL = 10.0
"""Seconds after which an idle relay looks into the spool without having been woken: for what another process left."""

MOVE_TIMEOUT = 3.0
"""Seconds that the inbox is given for a batch."""

LEASE = 10.0
"""Seconds that a batch is held. It may run out: what is moved twice is found out by its key."""

BATCH = 100

FIRST_PAUSE = 5.0
MAX_PAUSE = 3600.0
"""Seconds before an event that the inbox refuses is tried again: twice as many each time."""

MAX_RETRY = 30.0
"""Seconds before a spool that fails is looked into again."""


class SpoolRelay:
    """Moves events from the spool to the inbox, in one daemon thread of each process, and knows whether it is away.

    Each process finds out for itself. Once the inbox has failed, or not answered in time, it counts as away until one
    event has reached it.

    Args:
        spool: where events wait.
        inbox: where they belong.
        name: of the `Webhooks`.
        notices: who is told.
        in_context: calls a function with all that the framework needs around it.
        run_thread_exit_hooks: called as the last thing that the thread does.
        moved: is told the id of each event that the inbox did not have.
    """

    def __init__(
        self,
        spool: Spool,
        inbox: Inbox,
        *,
        name: str,
        notices: Notices,
        in_context: Callable[[Callable[[], list[Outcome]]], list[Outcome]],
        run_thread_exit_hooks: Callable[[], object],
        moved: Callable[[str], object],
    ) -> None:
        self.spool = spool
        self._inbox = inbox
        self._name = name
        self._notices = notices
        self._in_context = in_context
        self._run_thread_exit_hooks = run_thread_exit_hooks
        self._moved = moved
        self._states: dict[int, _State] = {}

    @property
    def inbox_is_down(self) -> bool:
        """Whether the inbox is not worth waiting for."""
        return self._here.away

    def inbox_failed(self, error: Exception) -> None:
        """Somebody has tried to store an event in the inbox, in vain."""
        here = self._here
        with here.lock:
            begins = not here.outage
            if begins:
                here.outage, here.got_through_before = True, here.got_through
            here.away, here.reached = True, False
        if begins:
            self._notices.emit(InboxDown(self._name, describe(error)))

    def inbox_answered(self) -> None:
        """An event was stored in the inbox."""
        here = self._here
        if here.outage and not here.reached:
            with here.lock:
                here.away, here.reached = False, True
            here.woken.set()

    def start(self) -> None:
        """See to a thread in this process, which looks into the spool at once; idempotent, fork-safe.

        It never raises: what is in the spool is safe there, and the next event asks again.
        """
        here = self._here
        if here.stop is not None:
            return
        with here.lock:
            if here.stop is None:
                stop = threading.Event()
                thread = threading.Thread(
                    target=self._run, args=(here, stop), name=f"envoyou-spool-{self._name}", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError as error:
                    self._notices.emit(SpoolFailed(self._name, describe(error), PROBE_INTERVAL))
                else:
                    here.thread, here.stop = thread, stop

    def event_spooled(self) -> None:
        """An event was stored in the spool: the thread looks into it, in its own time while the inbox is away."""
        self.start()
        self._here.spooled = True
        self._here.woken.set()

    def stop(self, timeout: float) -> None:
        """End the thread and wait for it; what is in the spool stays there.

        Args:
            timeout: seconds to wait; what it may hold after that is free again when its lease has run out.
        """
        here = self._here
        with here.lock:
            thread, stop = here.thread, here.stop
            here.thread = here.stop = None
        if thread is not None and stop is not None:
            stop.set()
            here.woken.set()
            thread.join(timeout)

    def move_all(self) -> None:
        """Move what is in the spool now, in the calling thread; it ends where the inbox is away.

        Raises:
            ConfigurationError: the spool cannot be opened.
        """
        here = self._here
        while self._move_batch(here) == 0:
            pass

    @property
    def _here(self) -> _State:
        pid = os.getpid()
        return self._states.get(pid) or self._states.setdefault(pid, _State())

    def _run(self, here: _State, stop: threading.Event) -> None:
        retry = PROBE_INTERVAL
        while not stop.is_set():
            here.woken.clear()
            try:
                pause = self._move_batch(here)
            except Exception as error:
                self._notices.emit(SpoolFailed(self._name, describe(error), retry))
                stop.wait(retry)
                retry = min(2 * retry, MAX_RETRY)
            else:
                retry = PROBE_INTERVAL
                # What is spooled while the inbox is away must not set the pace at which that is asked.
                (stop if here.away else here.woken).wait(pause)
        self._run_thread_exit_hooks()

    def _move_batch(self, here: _State) -> float:
        """Move some events; returns the seconds after which to look again, zero when there may be more."""
        with here.moving:
            until_due = self.spool.seconds_until_due()
            if until_due is None and here.spooled:
                # Whoever has taken out what was put in has reached the inbox, so that is worth another attempt.
                here.away = here.spooled = False
            if until_due is None or until_due > 0:
                self._tell_of_the_end(here)
                longest = PROBE_INTERVAL if here.away else SWEEP_INTERVAL
                return longest if until_due is None else min(until_due, longest)
            claims = self.spool.claim(1 if here.away else BATCH, LEASE)
            readable = self._put_off_unreadable(claims)
            if readable:
                self._sort_out(here, self._in_context(lambda: self._add_all(readable)))
            return PROBE_INTERVAL if here.away or not claims else 0.0

    def _tell_of_the_end(self, here: _State) -> None:
        with here.lock:
            ends = here.outage and here.reached
            here.outage = here.outage and not ends
        if ends:
            self._notices.emit(InboxUp(self._name, here.got_through - here.got_through_before))

    def _add_all(self, claims: list[Claim]) -> list[Outcome]:
        deadline = time.monotonic() + MOVE_TIMEOUT
        futures: list[Future[Added]] = []
        for claim in claims:
            # An inbox that stores in the calling thread may have used the time up.
            if futures and time.monotonic() > deadline:
                break
            futures.append(self._add(claim))
        wait(futures, timeout=max(0.0, deadline - time.monotonic()))
        results = [_result(future) for future in futures]
        untried = [_too_late() for _ in claims[len(futures) :]]
        return list(zip(claims, [*results, *untried], strict=True))

    def _add(self, claim: Claim) -> Future[Added]:
        try:
            return self._inbox.add(NewEvent(claim.event, claim.tenant, claim.webhook_id, claim.received_at))
        except Exception as error:
            failed: Future[Added] = Future()
            failed.set_exception(error)
            return failed

    def _sort_out(self, here: _State, outcomes: list[Outcome]) -> None:
        moved: list[Claim] = []
        undecided: list[Claim] = []
        errors: list[Exception] = []
        for claim, result in outcomes:
            if isinstance(result, Added):
                here.got_through += 1
                here.doubtful.pop(claim.key, None)
                moved.append(claim)
                if result.is_runnable:
                    self._moved(claim.event.id)
            elif not isinstance(result, TimeoutError) and here.is_refused(claim):
                self._put_off(claim, result)
            else:
                undecided.append(claim)
                errors.append(result)
        if moved:
            self.inbox_answered()
        elif errors:
            self.inbox_failed(errors[0])
        self.spool.remove(moved)
        self.spool.return_to_inbox(undecided)

    def _put_off_unreadable(self, claims: list[Claim]) -> list[Claim]:
        """Leave unreadable events in the spool, to be tried again later; returns the others."""
        for claim in claims:
            if claim.unreadable is not None:
                self._put_off(claim, InvalidPayloadError(f"the stored event is unreadable: {claim.unreadable}"))
        return [claim for claim in claims if claim.unreadable is None]

    def _put_off(self, claim: Claim, error: Exception) -> None:
        pause = min(FIRST_PAUSE * 2 ** min(claim.attempts, 10), MAX_PAUSE)
        what = describe(error, private=private_texts(claim.event))
        self.spool.settle(claim, Settlement(Status.FAILED, claim.attempts + 1, retry_in=pause, error=what))
        self._notices.emit(MoveRefused(claim.event.id, claim.event.type, what, pause))


@dataclass(slots=True)
class _State:
    """What belongs to one process: a forked child inherits no thread, and locks that another thread may have held.

    Attributes:
        moving: held by whoever moves a batch.
        lock: held while what follows is changed.
        woken: there may be something to move.
        stop: ends the thread; `None` where there is none.
        away: the inbox has failed, and no event has reached it since.
        spooled: this process has put an event into the spool, and not found it empty since.
        outage: that the inbox is away was told, and that it is back was not.
        reached: an event has reached the inbox since it failed last.
        got_through: how many events were moved.
        got_through_before: how many of them before the outage.
        doubtful: how many had got through when an event, by its key, failed for the first time.
    """

    moving: threading.Lock = field(default_factory=threading.Lock)
    lock: threading.Lock = field(default_factory=threading.Lock)
    woken: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event | None = None
    thread: threading.Thread | None = None
    away: bool = False
    spooled: bool = False
    outage: bool = False
    reached: bool = False
    got_through: int = 0
    got_through_before: int = 0
    doubtful: dict[int, int] = field(default_factory=dict)

    def is_refused(self, claim: Claim) -> bool:
        """Whether another event has got through since this one failed for the first time."""
        return claim.attempts > 0 or self.got_through > self.doubtful.setdefault(claim.key, self.got_through)


def _result(future: Future[Added]) -> Added | Exception:
    # One that is not begun is not stored any more; one that is may be stored late, and is a duplicate then.
    future.cancel()
    if future.cancelled() or not future.done():
        return _too_late()
    error = future.exception()
    return error if isinstance(error, Exception) else future.result()


def _too_late() -> TimeoutError:
    return TimeoutError(f"it did not answer within {MOVE_TIMEOUT:g} s")
