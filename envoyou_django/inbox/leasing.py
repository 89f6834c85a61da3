"""Leases of due events, and the lock between claims that follow the order of objects."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

from django.db import connections
from django.db.models import F

from envoyou_core.adapter import claim_of, transitions
from envoyou_core.inbox import Claim, HandlerSet
from envoyou_django.fields import stored_moment
from envoyou_django.inbox.columns import encode
from envoyou_django.inbox.commits import own_transaction
from envoyou_django.inbox.pruning import lock_or_create
from envoyou_django.models import ClaimLock, ProcessedEvent, ProcessedEventQuerySet

__all__ = ["exclusive_claim", "lease_rows"]


def lease_rows(
    rows: ProcessedEventQuerySet,
    due: Sequence[ProcessedEvent],
    seconds: float,
    now: datetime,
    handlers: HandlerSet | None,
    read_sets: Callable[[Collection[str]], Mapping[str, HandlerSet]],
) -> list[Claim]:
    """Lease due events in the transaction in which they were locked.

    Args:
        rows: all events of the inbox.
        due: the events to lease.
        seconds: the length of the lease.
        now: when the lease begins.
        handlers: the handlers of this process.
        read_sets: reads the handlers of other processes by their ids.
    """
    token = uuid.uuid4().hex
    leased = transitions.lease(token, seconds, now) | transitions.claimed_by(handlers)
    rows.filter(pk__in=[row.pk for row in due]).update(**encode(leased))
    crashed = {row.claimed_set for row in due if row.status == transitions.LEASED and row.claimed_set is not None}
    sets = read_sets(crashed) if crashed else {}
    return [_claim(rows, row, token, now, sets) for row in due]


def _claim(
    rows: ProcessedEventQuerySet, row: ProcessedEvent, token: str, now: datetime, sets: Mapping[str, HandlerSet]
) -> Claim:
    claim = claim_of(row, key=row.pk, token=token, moment=stored_moment)
    if row.status != transitions.LEASED:
        return claim
    changes = transitions.count_crash(claim, sets.get(row.claimed_set), now)
    # Counted in SQL, because the stored number may be unreadable.
    rows.filter(pk=row.pk).update(**encode(changes) | {"crashes": F("crashes") + 1})
    return replace(claim, **changes)


@contextmanager
def exclusive_claim(name: str, alias: str) -> Iterator[None]:
    """Run the block in a transaction during which no other claim on the inbox runs.

    Of two simultaneous claims, one could lease an event while the other leases another that must wait for it.
    """
    connection = connections[alias]
    # At a higher isolation level the snapshot would be older than the lock.
    with own_transaction(alias):
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"envoyou_claim:{name}"])
        else:
            # On SQLite any write takes the only write lock. It must come first: a transaction that reads first and
            # writes later fails at once if another writer came between.
            lock_or_create([ClaimLock(name=name)], alias, "name")
        yield
