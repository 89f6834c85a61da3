"""What is paused: types of events, and handlers. The inbox remembers it for all processes."""

from __future__ import annotations

import time
from collections.abc import Callable

from envoyou_core.inbox.protocol import Inbox

__all__ = ["Pauses", "handler_subject", "type_subject"]

LOOK_INTERVAL = 1.0
"""Seconds after which a worker asks anew."""


def type_subject(pattern: str) -> str:
    """The name by which an inbox knows that events of a pattern are paused."""
    return f"type:{pattern}"


def handler_subject(name: str) -> str:
    """The name by which an inbox knows that a handler is paused."""
    return f"handler:{name}"


class Pauses:
    """What is paused, as of no more than a second ago: a busy worker claims more often than it need ask.

    Args:
        inbox: where it is remembered.
        clock: seconds, from any point on.
    """

    def __init__(self, inbox: Inbox, clock: Callable[[], float] = time.monotonic) -> None:
        self._inbox = inbox
        self._clock = clock
        self._asked_at = float("-inf")
        self._paused: frozenset[str] = frozenset()

    def subjects(self) -> frozenset[str]:
        """The subjects that are paused."""
        now = self._clock()
        if now - self._asked_at >= LOOK_INTERVAL:
            self._paused = self._inbox.paused()
            self._asked_at = now
        return self._paused

    def look_again(self) -> None:
        """Ask anew the next time: something was changed here."""
        self._asked_at = float("-inf")
