"""The stream that carries notices to the listeners."""

from __future__ import annotations

from collections.abc import Callable

from envoyou_core.observability.notice import Notice
from envoyou_core.observability.redacted import RedactedLogger

__all__ = ["Listener", "Notices"]

log = RedactedLogger("envoyou")

Listener = Callable[[Notice], None]


class Notices:
    """The stream of notices. Each listener receives every notice, even if another listener fails."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with every notice from now on, in the thread that emits it. It must return quickly."""
        self._listeners.append(listener)

    def unsubscribe(self, listener: Listener) -> None:
        """Call `listener` no longer. For test kits."""
        self._listeners.remove(listener)

    def emit(self, notice: Notice) -> None:
        """Call the listeners with `notice`, in the order in which they subscribed."""
        for listener in self._listeners:
            try:
                listener(notice)
            except Exception:
                log.exception("a listener failed for %s", type(notice).__name__)
