"""Fork safety: a forked child has none of its parent's threads, but inherits the locks that they held."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable

__all__ = ["ForkSafeLock", "call_in_forked_children"]


def call_in_forked_children(method: Callable[[], None]) -> None:
    """Call a bound method in each forked child right after the fork, for as long as its object lives."""
    reference = weakref.WeakMethod(method)

    def call() -> None:
        bound = reference()
        if bound is not None:
            bound()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)


class ForkSafeLock:
    """A lock that is free in a forked child, even if a thread of the parent held it at the fork. Use it with `with`."""

    __slots__ = ("__weakref__", "_held", "_lock")

    def __init__(self) -> None:
        self._renew()
        self._held = self._lock
        call_in_forked_children(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        lock = self._lock
        lock.acquire()
        self._held = lock

    def __exit__(self, *_: object) -> None:
        self._held.release()
