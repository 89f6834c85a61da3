"""What a forked child inherits of its parent's threads: their locks, held for ever, and their connections."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable

__all__ = ["call_in_forked_children"]


def call_in_forked_children(method: Callable[[], None]) -> None:
    """Call a bound method first thing in each forked child, for as long as its object lives."""
    reference = weakref.WeakMethod(method)

    def call() -> None:
        found = reference()
        if found is not None:
            found()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)
