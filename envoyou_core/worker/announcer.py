"""Announces events to workers elsewhere by a function, such as one that enqueues a task of a task queue.

Announcements save waiting and carry no event: one may be lost, late or doubled.
"""

from __future__ import annotations

from collections.abc import Callable

from envoyou_core.worker.due_timer import DueTimer
from envoyou_core.worker.waker import Waker

__all__ = ["NO_EVENT", "Announcer"]

NO_EVENT = ""
"""The function's argument if the announcement is not about one accepted event."""

MAX_CALL = 10.0
"""Seconds after which a call of the function that has not returned is reported."""


class Announcer:
    """Calls a function with the id of each accepted event, and with `NO_EVENT` when other events have become due.

    Args:
        function: the function; it may block or raise.
        seconds_until_due: reads the inbox. See `WorkerInbox.seconds_until_due`.
        lease: seconds of a lease.
        recover: ends the leases of processes that are gone, and returns how many.
        report_error: called with what the function or a read raised.
        on_thread_exit: called in each of the two threads, which call the function and read the inbox, before it ends.
    """

    def __init__(
        self,
        function: Callable[[str], object],
        *,
        seconds_until_due: Callable[[float | None], float | None],
        lease: float,
        recover: Callable[[], int],
        report_error: Callable[[Exception], None],
        on_thread_exit: Callable[[], object] = lambda: None,
    ) -> None:
        self._waker = Waker(function, report_error, on_thread_exit=on_thread_exit)
        self._timer = DueTimer(
            self.announce,
            seconds_until_due=seconds_until_due,
            lease=lease,
            recover=recover,
            report_error=report_error,
            check=self._check_call,
            on_thread_exit=on_thread_exit,
        )

    def announce(self, event_id: str = NO_EVENT) -> None:
        """Call the function in a background thread; returns at once."""
        self._waker.send(event_id)

    def watch(self) -> None:
        """From now on, announce events that become due, in a thread of this process. Safe after a fork."""
        self._timer.watch()

    def close(self) -> None:
        """End the threads without waiting for them; they start again on use."""
        self._timer.stop()
        self._waker.close()

    def _check_call(self) -> None:
        seconds = self._waker.blocked_for()
        if seconds > MAX_CALL:
            raise TimeoutError(f"the handoff has not returned for {seconds:.0f} s; its broker may not be answering")
