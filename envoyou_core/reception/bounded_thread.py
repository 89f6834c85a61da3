"""One thread for work that must neither pile up nor run several times at once."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from envoyou_core.forks import call_in_forked_children

__all__ = ["BoundedThread"]

Result = TypeVar("Result")


class _Call(NamedTuple):
    function: Callable[[], Any]
    future: Future[Any]
    size: int


class BoundedThread:
    """Calls functions one after the other, in a daemon thread that lives as long as there is one to call.

    It is safe to use from any thread, and in a forked child, which inherits none of its parent's calls.

    Args:
        name: of the thread.
        max_calls: how many calls may be waiting or running.
        max_size: how many bytes they may hold together. A single call may hold more.
    """

    def __init__(self, name: str, *, max_calls: int, max_size: int) -> None:
        self._name = name
        self._max_calls = max_calls
        self._max_size = max_size
        self._begin_anew()
        call_in_forked_children(self._begin_anew)

    def _begin_anew(self) -> None:
        # In a forked child the thread does not exist, and another one of the parent's may have held the lock.
        self._lock = threading.Lock()
        self._calls: deque[_Call] = deque()
        self._size = 0

    def submit(self, function: Callable[[], Result], *, size: int) -> Future[Result]:
        """Have `function` called; a future that is cancelled before its turn is passed over.

        Args:
            function: what to call.
            size: how many bytes it keeps in memory until it has been called.

        Raises:
            queue.Full: too many calls are waiting, or they hold too much.
            RuntimeError: no thread can be started.
        """
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
            # A call stays in the queue while it runs, so that it counts.
            with self._lock:
                call = calls[0]
            _settle(call)
            with self._lock:
                calls.popleft()
                self._size -= call.size
                if not calls:
                    return
            del call


def _settle(call: _Call) -> None:
    if not call.future.set_running_or_notify_cancel():
        return
    try:
        result = call.function()
    except BaseException as error:
        call.future.set_exception(error)
    else:
        call.future.set_result(result)
