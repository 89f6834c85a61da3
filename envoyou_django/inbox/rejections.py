"""Rejected deliveries in the table of the model `RejectedDelivery`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import Any

from django.db import connections
from django.db.models import QuerySet

from envoyou_core.adapter import GroupCommit, keep_rejection, object_key, rejected_of, surplus
from envoyou_core.inbox import NewRejection
from envoyou_core.inbox import RejectedDelivery as KeptDelivery
from envoyou_django.fields import stored_moment
from envoyou_django.inbox.commits import committed
from envoyou_django.inbox.connection import close_old_connections, is_outage, replace_broken
from envoyou_django.inbox.pruning import lock_or_create
from envoyou_django.models import RejectedDelivery

__all__ = ["OrmRejections", "as_kept"]

MAX_WAITING = 64
"""The largest number of rejected deliveries that may wait to be kept. It bounds memory while the database hangs."""


class OrmRejections:
    """The rejected deliveries of one inbox.

    Args:
        name: the name of the inbox.
        alias: returns the alias of its database.
    """

    def __init__(self, name: str, alias: Callable[[], str]) -> None:
        self._name = name
        self._alias = alias
        # A writer of its own, so that no accepted event waits for a rejected one.
        self._writer = GroupCommit[NewRejection, int](
            self._store_together,
            is_outage=is_outage,
            max_waiting=MAX_WAITING,
            name="envoyou-rejection-writer",
            on_idle=close_old_connections,
            on_thread_exit=connections.close_all,
        )

    def close(self) -> None:
        """End the thread that stores deliveries."""
        self._writer.close()

    def keep(self, rejection: NewRejection, *, together: bool) -> Future[int]:
        """See `WorkerInbox.keep_rejected`. `together`: whether it may share a commit, in the writer's thread."""
        if together:
            return self._writer.submit(rejection)
        future: Future[int] = Future()
        try:
            future.set_result(self._store([rejection])[0])
        except Exception as error:
            future.set_exception(error)
        return future

    def _store_together(self, rejections: Sequence[NewRejection]) -> list[int]:
        replace_broken(connections[self._alias()])
        return self._store(rejections)

    def _store(self, rejections: Sequence[NewRejection]) -> list[int]:
        """Keep the deliveries whose body is not kept yet, and delete the oldest if there are too many."""
        with committed(self._alias()):
            for rejection in rejections:
                row = RejectedDelivery(name=self._name, **keep_rejection(rejection))
                lock_or_create([row], self._alias(), "name", "tenant", "digest")
            excess = surplus(self.rows.order_by("-pk").values_list("pk", "size"))
            deleted = self.rows.filter(pk__in=excess).delete()[0] if excess else 0
        return [deleted, *[0] * (len(rejections) - 1)]

    def newest(self, limit: int) -> list[KeptDelivery]:
        """Return up to `limit` deliveries, newest first."""
        return [as_kept(row) for row in self.rows.order_by("-pk")[:limit]]

    def get(self, key: int) -> KeptDelivery | None:
        """Return a delivery, or `None`."""
        row = self.rows.filter(pk=key).first()
        return None if row is None else as_kept(row)

    def prune(self, before: datetime) -> int:
        """Delete the deliveries that were received before a time; returns how many."""
        pruned: int = self.rows.filter(received_at__lt=before).delete()[0]
        return pruned

    def erase(self, object_id: str, tenant: str | None) -> None:
        """Delete the deliveries about an object, of one tenant or of all."""
        about = self.rows.filter(object_key=object_key(object_id))
        (about if tenant is None else about.filter(tenant=tenant)).delete()

    @property
    def rows(self) -> QuerySet:
        """The deliveries of the inbox."""
        return RejectedDelivery.objects.using(self._alias()).filter(name=self._name)


def as_kept(row: Any) -> KeptDelivery:
    """Return a row as the inbox shows it."""
    return rejected_of(row, key=row.pk, moment=stored_moment)
