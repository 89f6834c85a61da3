"""Django signals, for those who would rather connect a receiver than register a handler.

A signal tells of what has happened; it is no place for an event's work. It is sent at most once: a process that is
killed takes with it what was not sent yet, and nothing is tried again. A receiver that raises is logged by Django
(`django.dispatch`), and harms neither the event nor the other receivers.

The sender is the model `ProcessedEvent`. A receiver gets `name` (of the inbox), `event_id` and `event_type`, and what
is named with each signal:

    @receiver(event_dead)
    def alert(sender, event_id, event_type, error, **kwargs): ...

`event_received` is sent in the thread that answers the delivery, before it does: be quick. Where that thread runs an
event loop, it is sent in a thread that is there for nothing else, one signal after the other, where the ORM may be
used. What becomes of an event is told there by a worker, and by `drain()` in the thread that called it, so that a
test's receivers are in the test's transaction.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any

from django.dispatch import Signal

from envoyou_core.adapter import DaemonThreads, RedactedLogger, call_in_forked_children
from envoyou_core.inbox import Status
from envoyou_core.observability import Accepted, Notice, Settled

__all__ = ["SignalSender", "event_dead", "event_failed", "event_processed", "event_received"]

log = RedactedLogger("django.dispatch")
"""Where Django logs the failures of receivers, and operators look for them."""


class _EventSignal(Signal):
    def _log_robust_failure(self, receiver: Any, err: Exception) -> None:
        # Django would log the exception as it is, with the secrets and payloads in its text.
        log.error("receiver %s of a signal failed", getattr(receiver, "__qualname__", repr(receiver)), exc_info=err)


event_received = _EventSignal()
"""An event is on disk: one that is `new`, or a dead one that was `rearmed` (`added`), of which tenant (`tenant`)."""

event_processed = _EventSignal()
"""All its handlers have succeeded, in which `attempt`, within how many `seconds`."""

event_failed = _EventSignal()
"""An attempt has failed: which one (`attempt`), why (`error`), and in how many seconds comes the next (`retry_in`)."""

event_dead = _EventSignal()
"""It was given up, after which `attempt` and why (`error`)."""

_SIGNALS = {Status.PROCESSED: event_processed, Status.FAILED: event_failed, Status.DEAD: event_dead}


class SignalSender:
    """A listener that sends signals for notices.

    Args:
        name: of the inbox.
        around: entered around the receivers in the thread for signals.
        on_thread_exit: called in that thread as it ends.
    """

    def __init__(
        self,
        name: str,
        *,
        around: Callable[[], AbstractContextManager[object]],
        on_thread_exit: Callable[[], object],
    ) -> None:
        self._name = name
        self._around = around
        self._on_thread_exit = on_thread_exit
        self._calling = threading.local()
        self._begin_anew()
        call_in_forked_children(self._begin_anew)

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._thread: DaemonThreads | None = None

    @contextmanager
    def sending_here(self) -> Iterator[None]:
        """Have signals sent in the calling thread, for as long as the block lasts."""
        before = getattr(self._calling, "here", False)
        self._calling.here = True
        try:
            yield
        finally:
            self._calling.here = before

    def __call__(self, notice: Notice) -> None:
        """Send the signal that `notice` stands for, if there is one and somebody listens."""
        # Models can be imported only once the apps are loaded; receivers may be connected before.
        from envoyou_django.models import ProcessedEvent

        signal, told = _told(notice)
        if signal is None or not signal.has_listeners(ProcessedEvent):
            return
        send = partial(signal.send_robust, ProcessedEvent, name=self._name, **told)
        if getattr(self._calling, "here", False):
            send()
            return
        try:
            with self._lock:
                if self._thread is None:
                    self._thread = DaemonThreads(
                        1, f"envoyou-signals-{self._name}", on_thread_exit=self._on_thread_exit
                    )
                self._thread.submit(partial(self._send_in_thread, send))
        except RuntimeError:
            # Python 3.12 starts no thread any more while the process ends.
            self._thread = None
            self._send_in_thread(send)

    def _send_in_thread(self, send: Callable[[], object]) -> None:
        with self._around():
            send()

    def close(self, timeout: float) -> None:
        """Send what is to be sent, for up to `timeout` seconds, and end the thread; the next signal starts another."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            all_before = thread.submit(lambda: None)
            thread.close()
            with suppress(TimeoutError):
                all_before.result(timeout)


def _told(notice: Notice) -> tuple[Any, dict[str, Any]]:
    if isinstance(notice, Accepted) and notice.added.is_runnable:
        return event_received, _of_event(notice, added=notice.added.value, tenant=notice.tenant)
    if not isinstance(notice, Settled):
        return None, {}
    told = _of_event(notice, attempt=notice.attempt)
    if notice.status is Status.PROCESSED:
        return event_processed, told | {"seconds": notice.seconds}
    if notice.status is Status.FAILED:
        return event_failed, told | {"error": notice.error, "retry_in": notice.retry_in}
    if notice.status is Status.DEAD:
        return event_dead, told | {"error": notice.error}
    return None, {}


def _of_event(notice: Accepted | Settled, **more: Any) -> dict[str, Any]:
    return {"event_id": notice.event_id, "event_type": notice.event_type, **more}
