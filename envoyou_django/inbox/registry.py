"""The processes that use the inbox, and their handler sets."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from typing import Any

from django.db import connections
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Left

from envoyou_core.adapter import HOLDER_LENGTH, KEPT_FOR, SETS_KEPT_FOR, ProcessRegistration
from envoyou_core.inbox import HandlerSet, Process, ProcessKind
from envoyou_django.models import HandlerSetRow, ProcessedEvent, ProcessRow

__all__ = ["prune_processes", "read_processes", "read_sets", "write"]


def write(registration: ProcessRegistration, name: str, alias: str) -> None:
    """Store handler sets, and list processes as seen.

    The sets come first, and both in the order of their ids. Two transactions that write them in opposite orders could
    deadlock.
    """
    at = registration.at
    sets = [
        HandlerSetRow(name=name, set_id=handlers.id, handlers=handlers.encode(), seen_at=at)
        for handlers in sorted(registration.sets, key=lambda handlers: handlers.id)
    ]
    processes = [
        ProcessRow(
            name=name,
            process_id=process.id,
            kind=process.kind.value,
            handler_set=process.handlers.id,
            host=process.host,
            pid=process.pid,
            version=process.version,
            started_at=process.started_at,
            seen_at=at,
            boot_id=process.boot_id,
            pid_namespace=process.pid_namespace,
            pid_started=process.pid_started,
        )
        for process in sorted(registration.processes, key=lambda process: process.id)
    ]
    _upsert(HandlerSetRow, sets, ["seen_at"], ("name", "set_id"), alias)
    _upsert(ProcessRow, processes, ["kind", "handler_set", "seen_at"], ("name", "process_id"), alias)


def _upsert(model: Any, rows: list[Any], changing: list[str], key: tuple[str, str], alias: str) -> None:
    if rows:
        with_target = connections[alias].features.supports_update_conflicts_with_target
        model.objects.using(alias).bulk_create(
            rows, update_conflicts=True, update_fields=changing, unique_fields=key if with_target else None
        )


def read_sets(name: str, ids: Collection[str], alias: str) -> dict[str, HandlerSet]:
    """Read handler sets by their ids. One that is not stored, or cannot be read, is left out."""
    found: dict[str, HandlerSet] = {}
    stored = HandlerSetRow.objects.using(alias).filter(name=name, set_id__in=sorted(ids))
    for id, handlers in stored.values_list("set_id", "handlers"):
        with suppress(ValueError):
            found[id] = HandlerSet.decode(handlers)
    return found


def read_processes(name: str, alias: str, holders: Collection[str] | None = None) -> list[Process]:
    """Read the processes, the last seen first; only those with one of the `holders` in their lease tokens, if given."""
    stored = ProcessRow.objects.using(alias).filter(name=name)
    if holders is not None:
        stored = stored.annotate(holder=Left("process_id", HOLDER_LENGTH)).filter(holder__in=holders)
    rows = list(stored.order_by("-seen_at", "pk"))
    sets = read_sets(name, {row.handler_set for row in rows}, alias)
    return [
        Process(
            id=row.process_id,
            kind=ProcessKind(row.kind),
            handlers=sets[row.handler_set],
            host=row.host,
            pid=row.pid,
            version=row.version,
            started_at=row.started_at,
            seen_at=row.seen_at,
            boot_id=row.boot_id,
            pid_namespace=row.pid_namespace,
            pid_started=row.pid_started,
        )
        for row in rows
        if row.kind in set(ProcessKind) and row.handler_set in sets
    ]


def prune_processes(name: str, alias: str, now: datetime) -> int:
    """Delete processes that were last seen long ago, and handler sets that nothing refers to; returns the processes."""
    processes = ProcessRow.objects.using(alias).filter(name=name)
    pruned: int = processes.filter(seen_at__lt=now - KEPT_FOR).delete()[0]
    # Finished events do not need their sets: those that may be requeued have stored what they owe.
    unfinished = ProcessedEvent.objects.using(alias).filter(name=name, due_at__isnull=False)
    refers = Q(accepted_set=OuterRef("set_id")) | Q(claimed_set=OuterRef("set_id"))
    old = HandlerSetRow.objects.using(alias).filter(name=name, seen_at__lt=now - SETS_KEPT_FOR)
    unused = old.filter(~Exists(processes.filter(handler_set=OuterRef("set_id"))), ~Exists(unfinished.filter(refers)))
    # By their keys: MariaDB does not delete from a table that a subquery reads.
    HandlerSetRow.objects.using(alias).filter(pk__in=list(unused.values_list("pk", flat=True))).delete()
    return pruned
