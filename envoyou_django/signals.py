"""Django signals that report what happens to events.

Receivers are for notifications; the work on an event belongs in handlers. A signal is sent at most once: if the process
is killed before it is sent, it is lost. An exception in a receiver is logged by Django (`django.dispatch`) and affects
neither the event nor the other receivers.

The sender is the model `ProcessedEvent`. A receiver gets `name` (of the inbox), `event_id`, `event_type`, and the
arguments that are listed for each signal:

    @receiver(event_dead)
    def alert(sender, event_id, event_type, error, **kwargs): ...

`event_received` is sent before the response, in the thread that handles the request, so its receivers must be fast. If
that thread runs an event loop, the signal is sent in a dedicated thread, in order, where the ORM may be used. The other
signals are sent in that thread if a worker handles the event, and by `drain()` in the thread that called it, so that
receivers run in a test's transaction.
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
"""The logger in which Django reports failing receivers."""


class _EventSignal(Signal):
    def _log_robust_failure(self, receiver: Any, err: Exception) -> None:
        # Django would log the exception unredacted, with the secrets and payloads in its text.
        log.error("receiver %s of a signal failed", getattr(receiver, "__qualname__", repr(receiver)), exc_info=err)


event_received: Signal = _EventSignal()
"""An event was stored: a `new` one, or a dead one that a redelivery has `rearmed`.

Arguments: `added` (one of these two), `tenant`.
"""

event_processed: Signal = _EventSignal()
"""All handlers of an event have succeeded. Arguments: `attempt`, `seconds` (that the attempt took)."""

event_failed: Signal = _EventSignal()
"""An attempt failed and will be retried. Arguments: `attempt`, `error`, `retry_in` (seconds).

It is not sent for an attempt that was only postponed, by `RetryLater`.
"""

event_dead: Signal = _EventSignal()
"""An event failed for good. Arguments: `attempt`, `error`."""


class SignalSender:
    """A listener that sends signals for notices.

    Args:
        name: the inbox's name.
        around: makes a context in which the receivers run, in the thread for signals.
        on_thread_exit: called in that thread before it ends.
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
        self._reset()
        call_in_forked_children(self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._thread: DaemonThreads | None = None

    @contextmanager
    def sending_here(self) -> Iterator[None]:
        """Send the signals of this thread in this thread, until the block ends."""
        before = getattr(self._calling, "here", False)
        self._calling.here = True
        try:
            yield
        finally:
            self._calling.here = before

    def __call__(self, notice: Notice) -> None:
        """Send the signal for `notice`, if there is one and it has receivers."""
        # Models can be imported only once the apps are loaded; receivers may be connected before.
        from envoyou_django.models import ProcessedEvent

        signal, arguments = _signal_for(notice)
        if signal is None or not signal.has_listeners(ProcessedEvent):
            return
        send = partial(signal.send_robust, ProcessedEvent, name=self._name, **arguments)
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
            # Since Python 3.12 no thread can be started while the interpreter shuts down.
            self._thread = None
            self._send_in_thread(send)

    def _send_in_thread(self, send: Callable[[], object]) -> None:
        with self._around():
            send()

    def close(self, timeout: float) -> None:
        """Send the queued signals, for up to `timeout` seconds, and end the thread; the next signal starts another."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            all_before = thread.submit(lambda: None)
            thread.close()
            with suppress(TimeoutError):
                all_before.result(timeout)


def _signal_for(notice: Notice) -> tuple[Any, dict[str, Any]]:
    if isinstance(notice, Accepted) and notice.added.is_runnable:
        return event_received, _event_arguments(notice, added=notice.added.value, tenant=notice.tenant)
    if not isinstance(notice, Settled):
        return None, {}
    arguments = _event_arguments(notice, attempt=notice.attempt)
    if notice.status is Status.PROCESSED:
        return event_processed, arguments | {"seconds": notice.seconds}
    if notice.is_postponed:
        return None, {}
    if notice.status is Status.FAILED:
        return event_failed, arguments | {"error": notice.error, "retry_in": notice.retry_in}
    if notice.status is Status.DEAD:
        return event_dead, arguments | {"error": notice.error}
    return None, {}


def _event_arguments(notice: Accepted | Settled, **more: Any) -> dict[str, Any]:
    return {"event_id": notice.event_id, "event_type": notice.event_type, **more}
