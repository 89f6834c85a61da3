"""Group commit: items submitted while one commit is in progress share the next one.

There is no timer: an idle writer commits the first item at once. The more items are submitted at the same time, the
larger the batches become, and the cheaper each item.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from envoyou_core.forks import call_in_forked_children
from envoyou_core.inbox.commit_future import CommitFuture

__all__ = ["MAX_BATCH", "MAX_WAITING", "GroupCommit"]

MAX_BATCH = 128
"""The largest number of items in one transaction."""

MAX_WAITING = 10_000
"""The largest number of events that may wait to be stored. It bounds memory while the database hangs; senders get 503
and retry."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class GroupCommit(Generic[Item, Result]):
    """One writer thread for each process, started on first use and again after a fork.

    Args:
        commit: stores a batch in one transaction and returns one result for each item, in order.
        is_outage: whether an error of `commit` means that nothing can be stored now, rather than that one of the items
            was refused.
        max_batch: the largest number of items in one transaction.
        max_waiting: the largest number of items in the queue; further ones fail at once. `None` for no bound.
        name: the name of the thread.
        on_idle: called in the thread when the queue is empty; it must not raise.
        on_thread_exit: called in the thread before it ends.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        is_outage: Callable[[Exception], bool] = lambda _: False,
        max_batch: int = MAX_BATCH,
        max_waiting: int | None = None,
        name: str = "envoyou-inbox-writer",
        on_idle: Callable[[], object] = lambda: None,
        on_thread_exit: Callable[[], object] = lambda: None,
    ) -> None:
        self._commit = commit
        self._is_outage = is_outage
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._name = name
        self._on_idle = on_idle
        self._on_thread_exit = on_thread_exit
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[tuple[Item, Future[Result]] | None] = queue.SimpleQueue()
        self._running = False
        call_in_forked_children(self._reset)

    def start(self) -> None:
        """Start the writer now rather than on first use; idempotent."""
        with self._lock:
            if not self._running:
                self._start()

    def submit(self, item: Item) -> Future[Result]:
        """Queue `item`; the future has its result once the transaction is committed."""
        future: Future[Result] = CommitFuture()
        with self._lock:
            # Under the lock, so that nothing is queued behind the end of a writer that is being closed.
            if not self._running:
                self._start()
            waiting = self._queue.qsize()
            if self._max_waiting is None or waiting < self._max_waiting:
                self._queue.put((item, future))
                return future
        future.set_exception(TimeoutError(f"{waiting} events are already waiting to be stored"))
        return future

    def close(self) -> None:
        """End the writer after the items that are queued."""
        with self._lock:
            if self._running:
                self._queue.put(None)
            self._running = False

    def _reset(self) -> None:
        # A forked child has no writer thread. The queued items belong to its parent, whose threads may hold the lock.
        self._lock = threading.Lock()
        self._running = False

    def _start(self) -> None:
        # A closed writer may still be working through its own queue.
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
            # A request that timed out has cancelled its item: its answer was not 200, so the item need not be stored.
            self._settle([(item, future) for item, future in batch if future.set_running_or_notify_cancel()])
            if last:
                break
            if waiting.empty():
                self._on_idle()
        self._on_thread_exit()

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
            # One refused item must not fail the others in its batch.
            for one in batch:
                self._settle([one])
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)
