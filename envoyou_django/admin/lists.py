"""The list of events: its query, filters and search."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db.models import Q
from django.http import HttpRequest
from django.utils import formats, timezone
from django.utils.translation import gettext_lazy as _

from envoyou_core.adapter import object_key
from envoyou_django import conf
from envoyou_django.models import ProcessedEventQuerySet

__all__ = ["DayFilter", "EventList", "InboxFilter", "search"]

DAYS = 7
"""Days that the filter offers; `?day=2026-01-31` selects any other."""


class EventList(ChangeList):
    """The list of events, without the columns that only the page of an event shows: they may have a megabyte each."""

    def get_queryset(self, *args: Any, **keywords: Any) -> ProcessedEventQuerySet:
        """Return the events without their large columns."""
        return super().get_queryset(*args, **keywords).defer("body", "history", "progress")


class InboxFilter(admin.AllValuesFieldListFilter):
    """Filters by the name of the inbox, if there are several."""

    def has_output(self) -> bool:
        """Return whether there is a choice."""
        return bool(self.used_parameters) or len(self.lookup_choices) > 1


class DayFilter(admin.SimpleListFilter):
    """Filters by the day on which an event was received, in the current time zone."""

    title = _("day")
    parameter_name = "day"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, Any]]:
        """Return today and the days before it."""
        today = datetime.fromtimestamp(conf.clock()(), timezone.get_current_timezone()).date()
        names = {0: _("Today"), 1: _("Yesterday")}
        days = [today - timedelta(days=ago) for ago in range(DAYS)]
        return [(day.isoformat(), names.get(ago) or formats.date_format(day, "l j F")) for ago, day in enumerate(days)]

    def queryset(self, request: HttpRequest, queryset: ProcessedEventQuerySet) -> ProcessedEventQuerySet:
        """Return the events received on the selected day."""
        if self.value() is None:
            return queryset
        try:
            day = date.fromisoformat(self.value())
            begin, end = _midnight(day), _midnight(day + timedelta(days=1))
        except (ValueError, OverflowError) as error:
            raise IncorrectLookupParameters(error) from error
        return queryset.filter(received_at__gte=begin, received_at__lt=end)


def _midnight(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time.min)).astimezone(UTC)


def search(rows: ProcessedEventQuerySet, term: str) -> ProcessedEventQuerySet:
    """Return those of `rows` whose own id or whose object's id equals `term`.

    Substrings do not match: no index supports such a search, so it would be slow in a table of millions of rows.
    """
    return rows.filter(Q(event_id=term) | Q(object_key=object_key(term)))
