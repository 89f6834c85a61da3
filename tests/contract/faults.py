"""What can be wrong with an endpoint's stores, and its log: in files, so that it is the same across a process."""

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
"""Seconds: half of them pass in vain, and half are the other store's."""


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
    """What is wrong now with the stores whose `Webhooks` was rigged with the same folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._spooling = False

    @contextmanager
    def on(self, fault: str, *stores: str) -> Iterator[None]:
        """Have `inbox`, `spool` or both fail so for as long as the block lasts."""
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
        """Let the stores of `webhooks` ask, at each event, whether they fail."""
        self._spooling = webhooks.spool is not None
        for name in ("inbox", "spool"):
            store: Any = getattr(webhooks, name)
            if store is not None:
                store.add = self._failing(name, store.add)

    def heed(self) -> None:
        """Set how long stores are waited for in this process, for as long as some of them fail."""
        faults = [fault for store in ("inbox", "spool") if (fault := self._now(store))]
        receiver.ANSWER_BUDGET = self._budget(faults) if faults else REAL_BUDGET

    def _budget(self, faults: list[Callable[[object], Future[Added]]]) -> float:
        """Short for what never answers, and ample for the other store, which must answer on a busy machine too."""
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
    """Write all that this process logs into `file`, of whatever level, until the block ends."""
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
