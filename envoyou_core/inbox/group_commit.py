"""Group commit: whoever asks while one commit is in flight shares the next one.

There is no timer: an idle writer commits the first item at once, alone. The more is asked for at the same time, the
larger the groups become, and the cheaper each item.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from envoyou_core.forks import call_in_forked_children

__all__ = ["MAX_BATCH", "MOST_WAITING", "GroupCommit"]

MAX_BATCH = 128
"""Items that share one transaction, at most."""

MOST_WAITING = 10_000
"""Events that may wait to be stored. Who has sent one is told to come again by then, and it is stored then or never; a
database that hangs must not have them fill the memory."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class GroupCommit(Generic[Item, Result]):
    """One writer thread of this process, started on first use and anew after a fork.

    Args:
        commit: stores a batch in one transaction and returns one result for each item, in order.
        is_outage: whether an error of `commit` says that nothing can be stored now, rather than that one of the items
            is refused.
        max_batch: the most items of one transaction.
        most_waiting: how many may wait for a commit that does not come; what is asked for beyond that fails at once.
        name: of the thread.
        at_rest: called in the thread when it has stored all that it was asked for; it must not raise.
        at_end: called in the thread as the last thing it does.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        is_outage: Callable[[Exception], bool] = lambda _: False,
        max_batch: int = MAX_BATCH,
        most_waiting: int | None = None,
        name: str = "envoyou-inbox-writer",
        at_rest: Callable[[], object] = lambda: None,
        at_end: Callable[[], object] = lambda: None,
    ) -> None:
        self._commit = commit
        self._is_outage = is_outage
        self._max_batch = max_batch
        self._most_waiting = most_waiting
        self._name = name
        self._at_rest = at_rest
        self._at_end = at_end
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[tuple[Item, Future[Result]] | None] = queue.SimpleQueue()
        self._running = False
        call_in_forked_children(self._begin_anew)

    def start(self) -> None:
        """Have the writer run now, rather than from first use on; idempotent."""
        with self._lock:
            if not self._running:
                self._start()

    def submit(self, item: Item) -> Future[Result]:
        """Ask for `item` to be stored; the future has its result once the transaction is committed."""
        future: Future[Result] = Future()
        with self._lock:
            # Under the lock: a writer that is closed at this moment would leave behind what comes after its end.
            if not self._running:
                self._start()
            waiting = self._queue.qsize()
            if self._most_waiting is None or waiting < self._most_waiting:
                self._queue.put((item, future))
                return future
        future.set_exception(TimeoutError(f"{waiting} wait already to be stored"))
        return future

    def close(self) -> None:
        """Let the writer end after what it was given."""
        with self._lock:
            if self._running:
                self._queue.put(None)
            self._running = False

    def _begin_anew(self) -> None:
        # What a forked child inherits has no thread behind it and belongs to its parent, who may be holding the lock.
        self._lock = threading.Lock()
        self._running = False

    def _start(self) -> None:
        # The one that was closed may still be at work on what it was given.
        self._queue = queue.SimpleQueue()
        threading.Thread(target=self._write, args=(self._queue,), name=self._name, daemon=True).start()
        self._running = True

    def _write(self, waiting: queue.SimpleQueue[tuple[Item, Future[Result]] | None]) -> None:
        while (first := waiting.get()) is not None:
            batch = [first]
            last = False
            while len(batch) < self._max_batch and not waiting.empty():
                following = waiting.get()
                if following is None:
                    last = True
                    break
                batch.append(following)
            # Someone whose time was up has cancelled: the answer was not 200, so nothing is owed.
            self._settle([(item, future) for item, future in batch if future.set_running_or_notify_cancel()])
            if last:
                break
            if waiting.empty():
                self._at_rest()
        self._at_end()

    def _settle(self, batch: list[tuple[Item, Future[Result]]]) -> None:
        if not batch:
            return
        try:
            results = self._commit([item for item, _ in batch])
        except Exception as error:
            if len(batch) == 1 or self._is_outage(error):
                for _, future in batch:
                    future.set_exception(error)
                return
            # An item that is refused must not fail those that happened to share its transaction.
            for one in batch:
                self._settle([one])
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)
