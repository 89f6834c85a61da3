"""Events that need attention: overdue, waiting for a handler, or paused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from envoyou_core.adapter import paused_patterns
from envoyou_django import conf
from envoyou_django.inbox.claims import has_type
from envoyou_django.models import PausedSubject, ProcessedEventQuerySet
from envoyou_django.project import project_webhooks

__all__ = ["AttentionFilter", "Pauses", "overdue"]

OVERDUE: Final = timedelta(minutes=1)
"""How long an event is due before it is overdue. Workers take what is due within seconds."""


@dataclass(frozen=True, slots=True)
class Pauses:
    """What is paused.

    Attributes:
        subjects: the paused types and handlers, such as `type:user.*`, each with the name of its inbox.
    """

    subjects: Sequence[tuple[str, str]]

    @classmethod
    def read(cls, alias: str) -> Pauses:
        """Read the pauses of all inboxes in a database."""
        rows = PausedSubject.objects.using(alias).order_by("name", "subject")
        return cls(list(dict.fromkeys(rows.values_list("name", "subject"))))

    @property
    def labels(self) -> tuple[str, ...]:
        """The subjects, with the name of the inbox if there are several."""
        several = len({name for name, _subject in self.subjects}) > 1
        return tuple(f"{name}: {subject}" if several else subject for name, subject in self.subjects)

    @property
    def condition(self) -> Q:
        """The condition of the paused events.

        A handler that this process does not have pauses events of unknown types, which are left out.
        """
        condition = Q(pk__in=[])
        for name in {subject[0] for subject in self.subjects}:
            own = project_webhooks.registered if name == project_webhooks.inbox.name else ()
            patterns = paused_patterns([subject for inbox, subject in self.subjects if inbox == name], own)
            condition |= Q(name=name) & has_type(patterns)
        return condition


def overdue(rows: ProcessedEventQuerySet, pauses: Pauses, now: datetime) -> ProcessedEventQuerySet:
    """Return those of `rows` that no worker has taken although they are due, and that are not paused."""
    due = rows.filter(due_at__lte=now - OVERDUE)
    return due.exclude(pauses.condition) if pauses.subjects else due


class AttentionFilter(admin.SimpleListFilter):
    """Filters events that need attention."""

    title = _("attention")
    parameter_name = "attention"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, Any]]:
        """Return the kinds of attention."""
        return [("overdue", _("Overdue")), ("waiting", _("Waiting for a handler")), ("paused", _("Paused"))]

    def queryset(self, request: HttpRequest, queryset: ProcessedEventQuerySet) -> ProcessedEventQuerySet:
        """Return the events of the selected kind."""
        match self.value():
            case "overdue":
                return overdue(queryset, Pauses.read(queryset.db), conf.current_time())
            case "waiting":
                return queryset.awaiting()
            case "paused":
                return queryset.filter(Pauses.read(queryset.db).condition, due_at__isnull=False)
        return queryset
