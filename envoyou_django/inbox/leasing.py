"""Leases of due events, and the lock between claims that follow the order of objects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from django.db import connections
from django.db.models import BooleanField, F, Func, Q
from django.db.models.functions import Coalesce, Left
from msgspec.structs import replace

from envoyou_core.adapter import HOLDER_LENGTH, claim_of, lease_holder, new_lease_token, transitions
from envoyou_core.inbox import Claim, ClaimFilter, HandlerSet
from envoyou_django.fields import stored_moment
from envoyou_django.inbox.columns import encode
from envoyou_django.inbox.commits import own_transaction
from envoyou_django.inbox.pruning import lock_or_create
from envoyou_django.models import ClaimLock, ProcessedEvent, ProcessedEventQuerySet

__all__ = ["end_leases", "exclusive_claim", "extend_leases", "lease_holders", "lease_rows", "uncount_crash"]


def lease_rows(
    rows: ProcessedEventQuerySet,
    due: Sequence[ProcessedEvent],
    seconds: float,
    now: datetime,
    claim_filter: ClaimFilter,
    read_sets: Callable[[Collection[str]], Mapping[str, HandlerSet]],
) -> list[Claim]:
    """Lease due events in the transaction in which they were locked.

    Args:
        rows: all events of the inbox.
        due: the events to lease.
        seconds: the length of the lease.
        now: when the lease begins.
        claim_filter: names the process that claims, and its handlers.
        read_sets: reads the handlers of other processes by their ids.
    """
    token = new_lease_token(claim_filter.process_id)
    leased = transitions.lease(token, seconds, now) | transitions.claimed_by(claim_filter.handlers)
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


def lease_holders(rows: ProcessedEventQuerySet, now: datetime) -> list[str]:
    """Return the beginnings of the tokens of all leases that have not expired."""
    return list(_leased(rows, now).order_by().values_list("holder", flat=True).distinct())


def extend_leases(rows: ProcessedEventQuerySet, seconds: float, now: datetime) -> int:
    """Let the leases that have expired expire `seconds` after `now`; returns how many."""
    expired = rows.filter(status=transitions.LEASED, due_at__lte=now)
    extended: int = expired.update(**encode(transitions.extend_lease(seconds, now)))
    return extended


def uncount_crash(rows: ProcessedEventQuerySet, claim: Claim) -> bool:
    """Take back a crash that was counted since `claim`; returns whether there was one."""
    # The rule of `transitions.uncount_crash`.
    counted = rows.filter(pk=claim.key, crashes__gt=claim.crashes).update(crashes=F("crashes") - 1)
    return bool(counted)


def end_leases(rows: ProcessedEventQuerySet, process_ids: Collection[str], now: datetime) -> int:
    """End the leases that processes hold, which are gone; returns how many."""
    held = _leased(rows, now).filter(holder__in=sorted(map(lease_holder, process_ids)))
    ended: int = held.update(**encode(transitions.end_lease(now)))
    return ended


def _leased(rows: ProcessedEventQuerySet, now: datetime) -> ProcessedEventQuerySet:
    # So that an index on the status is used: few rows have this one, as SQLite does not know. By `due_at`,
    # all events that wait for a retry would be read.
    has_status: Q | Func = Q(status=transitions.LEASED)
    if connections[rows.db].vendor == "sqlite":
        has_status = Func(has_status, function="unlikely", output_field=BooleanField())
    leased = rows.alias(ends_at=Coalesce("due_at", "due_at")).filter(has_status, ends_at__gt=now)
    return leased.annotate(holder=Left("lease_token", HOLDER_LENGTH))


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
