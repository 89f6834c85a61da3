"""Faults of an endpoint's stores, and its log. Both are kept in files, to work across processes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from envoyou_core import Webhooks
from envoyou_core.inbox import Added
from envoyou_core.reception import receiver

REAL_BUDGET = receiver.ANSWER_BUDGET
AMPLE_BUDGET = 30.0
SHORT_BUDGET = 0.2
SPLIT_BUDGET = 6.0
"""Seconds: half of it is spent on the failing store, and half is left for the other one."""


class StorageError(Exception):
    pass


def raises_at_once(_: object) -> Future[Added]:
    raise StorageError("disk full at /var/lib/secret-place")


def fails_later(_: object) -> Future[Added]:
    future: Future[Added] = Future()
    future.set_exception(StorageError("disk full at /var/lib/secret-place"))
    return future


def hangs(_: object) -> Future[Added]:
    return Future()


FAULTS: dict[str, Callable[[object], Future[Added]]] = {
    fault.__name__: fault for fault in (raises_at_once, fails_later, hangs)
}


class Faults:
    """The current faults of the stores whose `Webhooks` was rigged with the same folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._spooling = False

    @contextmanager
    def on(self, fault: str, *stores: str) -> Iterator[None]:
        """Let `inbox`, `spool` or both fail in this way during the block."""
        for store in stores:
            self._file(store).write_text(fault)
        self.heed()
        try:
            yield
        finally:
            for store in stores:
                self._file(store).unlink()
            self.heed()

    def rig(self, webhooks: Webhooks) -> None:
        """Make the stores of `webhooks` check at each event whether they fail."""
        self._spooling = webhooks.spool is not None
        for name in ("inbox", "spool"):
            store: Any = getattr(webhooks, name)
            if store is not None:
                store.add = self._failing(name, store.add)

    def heed(self) -> None:
        """Set the answer budget of this process while a store fails."""
        faults = [fault for store in ("inbox", "spool") if (fault := self._now(store))]
        receiver.ANSWER_BUDGET = self._budget(faults) if faults else REAL_BUDGET

    def _budget(self, faults: list[Callable[[object], Future[Added]]]) -> float:
        """Return a budget: short for a store that never answers, ample for the other one, even on a busy machine."""
        if hangs not in faults:
            return AMPLE_BUDGET
        return SPLIT_BUDGET if self._spooling else SHORT_BUDGET

    def _failing(self, store: str, add: Callable[[object], Future[Added]]) -> Callable[[object], Future[Added]]:
        return lambda entry: (self._now(store) or add)(entry)

    def _now(self, store: str) -> Callable[[object], Future[Added]] | None:
        try:
            return FAULTS[self._file(store).read_text()]
        except FileNotFoundError:
            return None

    def _file(self, store: str) -> Path:
        return self._folder / f"{store}-fails"


@contextmanager
def everything_logged(file: Path) -> Iterator[None]:
    """Write all log messages of this process to `file` during the block, of any level."""
    root = logging.getLogger()
    level = root.level
    handler = logging.FileHandler(file, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()
