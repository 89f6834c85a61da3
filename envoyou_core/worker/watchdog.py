"""Reports sync handlers that exceed their time limit. A thread cannot be stopped, so this is all that can be done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from envoyou_core.observability.attempt_notices import HandlerOverdue
from envoyou_core.observability.notices import Notices
from envoyou_core.steps import CallHandler
from envoyou_core.worker.loop_tasks import LoopTasks

__all__ = ["Watchdog"]


class Watchdog:
    """Times the sync handlers of a worker. The timers run on its event loop.

    Args:
        loop: the worker's event loop.
        notices: receives a notice for each overdue handler.
        on_overdue: called on the loop with the number of handlers that are overdue now, each time one becomes overdue.
    """

    def __init__(self, loop: LoopTasks, notices: Notices, *, on_overdue: Callable[[int], object]) -> None:
        self._loop = loop
        self._notices = notices
        self._on_overdue = on_overdue
        self._overdue: set[_TimedCall] = set()

    @contextmanager
    def watch(self, step: CallHandler) -> Iterator[None]:
        """Time the handler that the calling thread runs within the context."""
        if step.time_limit is None:
            yield
            return
        call = _TimedCall(step, step.time_limit)
        self._loop.call_soon(self._start_timer, call)
        try:
            yield
        finally:
            call.returned = True
            self._loop.call_soon(self._overdue.discard, call)

    def _start_timer(self, call: _TimedCall) -> None:
        asyncio.get_running_loop().call_later(call.time_limit, self._check, call)

    def _check(self, call: _TimedCall) -> None:
        if call.returned:
            return
        self._overdue.add(call)
        step = call.step
        self._notices.emit(HandlerOverdue(step.event_id, step.event_type, step.handler, call.time_limit))
        self._on_overdue(len(self._overdue))


@dataclass(slots=True, eq=False)
class _TimedCall:
    """A handler with a time limit that runs in a thread, or has returned."""

    step: CallHandler
    time_limit: float
    returned: bool = False
