"""The stream that carries notices to the listeners."""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from envoyou_core.observability.notice import Notice
from envoyou_core.observability.redacted import RedactedLogger

__all__ = ["Listener", "Notices", "Subscription"]

log = RedactedLogger("envoyou")

Listener = Callable[[Notice], object]


class Subscription(msgspec.Struct, frozen=True):
    """A listener, and the kinds of notices that it receives: `None` for all that are not made on demand."""

    listener: Listener
    kinds: Collection[type[Notice]] | None = None

    def __call__(self, notice: Notice) -> object:
        """Call the listener."""
        return self.listener(notice)

    def includes(self, kind: type[Notice]) -> bool:
        """Whether the listener receives notices of `kind`."""
        return not kind.on_demand if self.kinds is None else kind in self.kinds


class Notices:
    """The stream of notices. Each listener receives its notices even if another listener fails."""

    def __init__(self) -> None:
        self._subscriptions: list[Subscription] = []
        # By kind, because several notices are emitted for each event.
        self._listeners: dict[type[Notice], tuple[Listener, ...]] = {}

    def subscribe(self, listener: Listener, kinds: Collection[type[Notice]] | None = None) -> None:
        """Call `listener` with notices from now on, in the thread that emits them. It must return quickly.

        Args:
            listener: the function.
            kinds: the kinds of notices that it receives; `None` for all that are not made on demand.
        """
        self._subscriptions.append(Subscription(listener, kinds))
        self._listeners = {}

    def wants(self, kind: type[Notice]) -> bool:
        """Whether a listener receives notices of `kind`, so that it is worth making one."""
        return bool(self._listeners.get(kind) or self._listeners_of(kind))

    def unsubscribe(self, listener: Listener) -> None:
        """Call `listener` no longer. For test kits."""
        self._subscriptions = [it for it in self._subscriptions if it.listener != listener]
        self._listeners = {}

    def emit(self, notice: Notice) -> None:
        """Call the listeners with `notice`, in the order in which they subscribed."""
        kind = type(notice)
        for listener in self._listeners.get(kind) or self._listeners_of(kind):
            try:
                listener(notice)
            except Exception:
                log.exception("a listener failed for %s", kind.__name__)

    def _listeners_of(self, kind: type[Notice]) -> tuple[Listener, ...]:
        by_kind = self._listeners
        if (listeners := by_kind.get(kind)) is None:
            listeners = tuple(it.listener for it in tuple(self._subscriptions) if it.includes(kind))
            by_kind[kind] = listeners
        return listeners
