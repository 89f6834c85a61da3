"""Which events may be claimed: those that are due, of the types asked for, and not held back by their order."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from django.db.models import Exists, F, OuterRef, Q
from django.db.models.functions import Left
from django.db.models.lookups import Exact

from envoyou_core.inbox import ClaimFilter, Status
from envoyou_django.models import ProcessedEventQuerySet

__all__ = ["claimable"]


def claimable(rows: ProcessedEventQuerySet, claim_filter: ClaimFilter, now: datetime) -> ProcessedEventQuerySet:
    """Those of one inbox's `rows` that may be claimed, in the order in which they came due."""
    due = rows.due(now)
    if claim_filter.include is not None:
        due = due.filter(_of_types(claim_filter.include))
    if claim_filter.exclude:
        due = due.exclude(_of_types(claim_filter.exclude))
    if claim_filter.ordered:
        ordered = _of_types(claim_filter.ordered)
        # Where it is not known yet what an event is about, nobody can say what it has to wait for.
        known = Q(object_key__isnull=False)
        due = due.filter(~ordered | Q(object_key="") | known & ~Exists(_in_the_way(rows.filter(ordered), now)))
    return due


def _in_the_way(rows: ProcessedEventQuerySet, now: datetime) -> ProcessedEventQuerySet:
    """Those of `rows` that hold back the event of the query around this one."""
    unfinished = rows.filter(tenant=OuterRef("tenant"), object_key=OuterRef("object_key"), due_at__isnull=False)
    created_before = Q(created__lt=OuterRef("created"))
    arrived_before = Q(created=OuterRef("created"), pk__lt=OuterRef("pk"))
    in_work = Q(status=Status.PROCESSING, due_at__gt=now)
    return unfinished.filter(created_before | arrived_before | in_work)


def _of_types(patterns: Iterable[str]) -> Q:
    """The condition that an event's type is one of `patterns`, compared by its bytes.

    `LIKE` is not: databases fold cases in it, and take an underscore for any character.
    """
    found = Q(type__in=[pattern for pattern in patterns if not pattern.endswith("*")])
    for stem in (pattern[:-1] for pattern in patterns if pattern.endswith("*")):
        found |= Q(Exact(Left(F("type"), len(stem)), stem)) if stem else Q(type__isnull=False)
    return found
