"""Selects the events that may be claimed: due, of the claimed types, and not blocked by an earlier event."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from django.db.models import Exists, F, OuterRef, Q
from django.db.models.functions import Left
from django.db.models.lookups import Exact

from envoyou_core.adapter import awaited_handlers
from envoyou_core.inbox import ClaimFilter, HandlerSet, Status
from envoyou_django.models import ProcessedEventQuerySet

__all__ = ["awaiting", "claimable", "has_type"]


def claimable(rows: ProcessedEventQuerySet, claim_filter: ClaimFilter, now: datetime) -> ProcessedEventQuerySet:
    """Select those of one inbox's `rows` that may be claimed, ordered by when they were due."""
    due = awaiting(rows, claim_filter.handlers).order_by("due_at", "pk") if claim_filter.waiting else rows.due(now)
    if claim_filter.include is not None:
        due = due.filter(has_type(claim_filter.include))
    if claim_filter.exclude:
        due = due.exclude(has_type(claim_filter.exclude))
    if claim_filter.ordered:
        ordered = has_type(claim_filter.ordered)
        # While an event's object is unknown, it is unknown which events must be handled before it.
        known = Q(object_key__isnull=False)
        due = due.filter(
            ~ordered | Q(object_key="") | known & ~Exists(_blocking(rows.filter(ordered), claim_filter.handlers, now))
        )
    return due


def awaiting(rows: ProcessedEventQuerySet, handlers: HandlerSet | None) -> ProcessedEventQuerySet:
    """Select those of `rows` that wait for one of `handlers`."""
    keys = [] if handlers is None else [key for key, _ in awaited_handlers(handlers)]
    return rows.awaiting().filter(_is_awaited(handlers), waits_for__in=keys)


def _is_awaited(handlers: HandlerSet | None) -> Q:
    """The condition of `transitions.is_awaited`."""
    condition = Q(pk__in=[])
    for key, patterns in [] if handlers is None else awaited_handlers(handlers):
        condition |= Q(waits_for=key) & has_type(patterns)
    return condition


def _blocking(rows: ProcessedEventQuerySet, handlers: HandlerSet | None, now: datetime) -> ProcessedEventQuerySet:
    """Select those of `rows` that block the event of the outer query."""
    unfinished = rows.filter(tenant=OuterRef("tenant"), object_key=OuterRef("object_key"), due_at__isnull=False)
    created_before = Q(created__lt=OuterRef("created"))
    arrived_before = Q(created=OuterRef("created"), pk__lt=OuterRef("pk"))
    in_line = Q(waits_for__isnull=True) | Q(due_at__lte=now) | _is_awaited(handlers)
    in_progress = Q(status=Status.PROCESSING, due_at__gt=now)
    return unfinished.filter((created_before | arrived_before) & in_line | in_progress)


def has_type(patterns: Iterable[str]) -> Q:
    """The condition that an event's type matches one of `patterns`, compared byte by byte.

    `LIKE` ignores case on some databases, and treats an underscore as a wildcard.
    """
    condition = Q(type__in=[pattern for pattern in patterns if not pattern.endswith("*")])
    for prefix in (pattern[:-1] for pattern in patterns if pattern.endswith("*")):
        condition |= Q(Exact(Left(F("type"), len(prefix)), prefix)) if prefix else Q(type__isnull=False)
    return condition
