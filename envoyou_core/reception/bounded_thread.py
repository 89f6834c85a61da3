"""A thread with a bounded queue, for expensive work that must not run concurrently."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from envoyou_core.forks import call_in_forked_children

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["BoundedThread"]

Result = TypeVar("Result")


class _Call(NamedTuple):
    function: Callable[[], Any]
    future: Future[Any]
    size: int


class BoundedThread:
    """Calls functions one after the other, in a daemon thread that runs while the queue is not empty.

    Safe to use from any thread, and in a forked child, which does not inherit its parent's calls.

    Args:
        name: the thread's name.
        max_calls: the maximum number of calls in the queue, the running one included.
        max_size: the maximum number of bytes that these calls hold together. A single call may hold more.
    """

    def __init__(self, name: str, *, max_calls: int, max_size: int) -> None:
        self._name = name
        self._max_calls = max_calls
        self._max_size = max_size
        self._reset()
        call_in_forked_children(self._reset)

    def _reset(self) -> None:
        # In a forked child the thread does not exist, and another thread of the parent may have held the lock.
        self._lock = threading.Lock()
        self._calls: deque[_Call] = deque()
        self._size = 0

    def submit(self, function: Callable[[], Result], *, size: int) -> Future[Result]:
        """Queue a call of `function`. If the returned future is cancelled before the call begins, the call is skipped.

        Args:
            function: the function to call, without arguments.
            size: how many bytes it keeps in memory until it has been called.

        Raises:
            queue.Full: too many calls are queued, or they hold too many bytes.
            RuntimeError: no thread can be started.
        """
        # With the first large body, because few processes get one.
        from concurrent.futures import Future

        future: Future[Result] = Future()
        with self._lock:
            if self._calls and (len(self._calls) >= self._max_calls or self._size + size > self._max_size):
                raise queue.Full
            if not self._calls:
                threading.Thread(target=self._call_all, args=(self._calls,), name=self._name, daemon=True).start()
            self._calls.append(_Call(function, future, size))
            self._size += size
        return future

    def _call_all(self, calls: deque[_Call]) -> None:
        while True:
            # A call stays in the queue while it runs, so that it counts towards the limits.
            with self._lock:
                call = calls[0]
            _execute(call)
            with self._lock:
                calls.popleft()
                self._size -= call.size
                if not calls:
                    return
            del call


def _execute(call: _Call) -> None:
    if not call.future.set_running_or_notify_cancel():
        return
    try:
        result = call.function()
    except BaseException as error:
        call.future.set_exception(error)
    else:
        call.future.set_result(result)
