"""The future of something that waits for a commit."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["CommitFuture"]

Result = TypeVar("Result")

_PENDING, _RUNNING, _FINISHED = "PENDING", "RUNNING", "FINISHED"
_CANCELLED, _CANCELLED_AND_NOTIFIED = "CANCELLED", "CANCELLED_AND_NOTIFIED"
_NOT_DONE = frozenset({_PENDING, _RUNNING})


class CommitFuture(Future[Result]):
    """A `Future` that costs less.

    The base class makes a condition for each future, and takes its lock for each call. Here the condition is made when
    a method of the base class needs it. Otherwise each change is one operation that Python itself makes atomic.
    """

    # What the base class sets in its constructor, which is not called.
    _state = _PENDING
    _result: Result | None = None
    _exception: BaseException | None = None

    def __init__(self) -> None:
        self._waiters: list[Any] = []
        self._done_callbacks: deque[Callable[[Future[Result]], object]] = deque()
        self._conditions: dict[None, threading.Condition] = {}
        # The thread that takes the only element decides whether the item is stored or was cancelled.
        self._undecided = [True]

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        # Of several threads one makes it, which `setdefault` decides.
        return self._conditions.get(None) or self._conditions.setdefault(None, threading.Condition())

    def _decide(self) -> bool:
        try:
            return self._undecided.pop()
        except IndexError:
            return False

    def cancel(self) -> bool:
        """See `Future.cancel`."""
        # Under the lock, so that the state has changed when `set_running_or_notify_cancel` finds the decision taken.
        with self._condition:
            is_cancelled = self._state == _PENDING and self._decide()
            if is_cancelled:
                self._state = _CANCELLED
                self._condition.notify_all()
        if is_cancelled:
            self._invoke_callbacks()
        return is_cancelled or self.cancelled()

    def done(self) -> bool:
        """See `Future.done`."""
        return self._state not in _NOT_DONE

    def result(self, timeout: float | None = None) -> Result:
        """See `Future.result`."""
        if self._state in _NOT_DONE:
            # A lock costs less than a condition.
            ended = threading.Lock()
            ended.acquire()
            self.add_done_callback(lambda _: ended.release())
            if not ended.acquire(timeout=-1 if timeout is None else max(timeout, 0.0)):
                raise TimeoutError
        if self._state == _FINISHED and self._exception is None:
            return self._result  # type: ignore[return-value]  # a result of the right type was set
        return super().result()

    def add_done_callback(self, fn: Callable[[Future[Result]], object]) -> None:
        """See `Future.add_done_callback`."""
        self._done_callbacks.append(fn)
        # If the result came in between, one of both threads takes the callback and calls it.
        if self._state not in _NOT_DONE:
            self._invoke_callbacks()

    def set_running_or_notify_cancel(self) -> bool:
        """See `Future.set_running_or_notify_cancel`."""
        if self._decide():
            self._state = _RUNNING
            return True
        with self._condition:
            self._state = _CANCELLED_AND_NOTIFIED
            for waiter in self._waiters:
                waiter.add_cancelled(self)
        return False

    def set_result(self, result: Result) -> None:
        """See `Future.set_result`."""
        self._result = result
        self._state = _FINISHED
        # After the state. A thread that begins to wait makes the condition first, and then looks at the state.
        if self._conditions:
            with self._condition:
                for waiter in self._waiters:
                    waiter.add_result(self)
                self._condition.notify_all()
        self._invoke_callbacks()

    def _invoke_callbacks(self) -> None:
        callbacks = self._done_callbacks
        while callbacks:
            try:
                callback = callbacks.popleft()
            except IndexError:
                return
            try:
                callback(self)
            except Exception:
                logging.getLogger("concurrent.futures").exception("exception calling callback for %r", self)
