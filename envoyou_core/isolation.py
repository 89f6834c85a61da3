"""Isolates a `Webhooks` object for one test: no worker, and an inbox of its own if the application's is not needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from msgspec import structs

from envoyou_core.observability import Listener
from envoyou_core.pausing import Pausing
from envoyou_core.reception.receiver import Receiver

__all__ = ["Isolation"]

_SWITCHED: Final = (
    "_settings",
    "_announcer",
    "_relay",
    "_reports_missing_spool",
    "inbox",
    "_inbox",
    "_presence",
    "_reception",
    "_in_process",
    "_worker_pid",
)
"""The attributes that a test may change."""


class Isolation(Pausing):
    """What a test kit needs of a `Webhooks` object."""

    _reception: Receiver
    _has_inbox_of_its_own: bool

    @contextmanager
    def isolated(self, listener: Listener) -> Iterator[None]:
        """Handle events by hand until the block ends. A worker that runs is stopped, whatever `handoff` is.

        Events are stored in memory, unless the inbox was given as an object, or a handler shares its transaction: such
        an inbox is part of the application's database, which its tests must provide anyway.

        Args:
            listener: called with each notice until the block ends.
        """
        if self._in_process is not None:
            self.stop()
        before = {name: getattr(self, name) for name in _SWITCHED}
        engine = self.__dict__.pop("_engine", None)
        self._settings = structs.replace(self._settings, handoff="manual")
        self._announcer = None
        self._in_process = None
        # In Django, a process whose worker was never enabled notifies no task queue.
        self._worker_pid = None
        if not self.keeps_inbox_in_tests:
            self._use_memory()
        self._notices.subscribe(listener)
        try:
            yield
        finally:
            self._notices.unsubscribe(listener)
            vars(self).update(before)
            self.__dict__.pop("_engine", None)
            if engine is not None:
                self.__dict__["_engine"] = engine

    @property
    def keeps_inbox_in_tests(self) -> bool:
        """Whether tests use the application's own inbox. See `isolated`."""
        return not self._has_inbox_of_its_own or any(handler.shares_transaction for handler in self._handlers)

    def _use_memory(self) -> None:
        from envoyou_core.inbox.memory import MemoryInbox
        from envoyou_core.inbox.processes import Presence
        from envoyou_core.nonces.memory import MemoryNonceStore

        clock = self._settings.clock
        inbox = MemoryInbox(name=self._inbox.name, clock=clock)
        self._relay = None
        self._reports_missing_spool = False
        self.inbox = self._inbox = inbox
        self._presence = Presence(self._handlers, clock=clock)
        self._reception = replace(
            self._reception,
            inbox=inbox,
            nonces=MemoryNonceStore(),
            relay=None,
            presence=self._presence,
            captures=None,
        )

    @property
    def clock(self) -> Callable[[], float]:
        """The clock, in epoch seconds. For test kits."""
        return self._settings.clock

    @property
    def endpoint_header_values(self) -> Mapping[str, str]:
        """The first accepted value of each required custom header, which is secret. For test kits."""
        return {name: values[0].decode() for name, values in self._reception.endpoint_headers.required}
