"""Divides the connections that the server admits for a role among the live processes."""

from __future__ import annotations

from datetime import UTC, datetime

from envoyou_core.inbox.connection_budget import ConnectionBudget, share_of_limit
from envoyou_core.inbox.processes import ProcessKind
from envoyou_core.observability.worker_notices import HandlersBounded
from envoyou_core.worker.engine import Engine

__all__ = ["ConnectionShare"]


class ConnectionShare:
    """The connections of one worker's process, as its pool and the server's limit bound them.

    Args:
        engine: of the worker.
        name: the name of the `Webhooks`.
        concurrency: how many attempts the worker runs at once.
    """

    def __init__(self, engine: Engine, name: str, concurrency: int) -> None:
        self._engine = engine
        self._name = name
        self._concurrency = concurrency
        self._budget: ConnectionBudget | None = getattr(engine.inbox, "connection_budget", None)
        self._limit: int | None = None
        self._is_limit_known = False
        self._reported: int | None = None

    def divide(self) -> None:
        """Divide the connections anew, since processes come and go. Must be called in the inbox's thread."""
        if self._budget is None:
            return
        if not self._is_limit_known:
            self._limit = self._engine.in_context(self._engine.inbox.connection_limit)
            self._is_limit_known = True
        if self._limit is None:
            return
        now = datetime.fromtimestamp(self._engine.clock(), UTC)
        live = [each for each in self._engine.in_context(self._engine.inbox.processes) if each.live_for(now) > 0]
        workers = sum(each.kind is ProcessKind.WORKER for each in live)
        others = sum(each.kind in {ProcessKind.ACCEPTS, ProcessKind.DRAIN} for each in live)
        self._budget.limit_to(share_of_limit(self._limit, workers=workers, others=others))
        self.report()

    def report(self) -> None:
        """Emit a notice if fewer handlers may hold a transaction than the worker has slots, unless it is known."""
        budget = self._budget
        if budget is None or budget.handlers is None or budget.handlers >= self._concurrency:
            return
        if budget.handlers != self._reported and any(handler.shares_transaction for handler in self._engine.handlers):
            self._reported = budget.handlers
            self._engine.notices.emit(HandlersBounded(self._name, budget.handlers, budget.total or 0))
