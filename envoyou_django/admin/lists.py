"""The list of events: its query, filters and search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from urllib.parse import parse_qsl

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import formats, timezone
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from envoyou_core.adapter import object_key
from envoyou_core.inbox import COUNTED
from envoyou_django import conf
from envoyou_django.models import ProcessedEventQuerySet

__all__ = ["BoundedPaginator", "DayFilter", "EventList", "InboxFilter", "ReceivedFilter", "ValuesFilter", "search"]

MAX_VALUES = 100
"""Values that a filter offers."""

DAYS = 7
"""Days that the filter offers; `?day=2026-01-31` selects any other."""


class BoundedPaginator(Paginator):
    """Pages of the first `COUNTED` rows, because counting and skipping take longer the more rows there are."""

    @cached_property
    def count(self) -> int:
        """The number of rows, at most `COUNTED`."""
        counted: int = self.object_list.order_by()[:COUNTED].count()
        return counted


class EventList(ChangeList):
    """The list of events, without the columns that only the page of an event shows: they may have a megabyte each."""

    def get_queryset(self, *args: Any, **keywords: Any) -> ProcessedEventQuerySet:
        """Return the events without their large columns."""
        return super().get_queryset(*args, **keywords).defer("body", "history", "progress")

    @property
    def is_bounded(self) -> bool:
        """Whether there may be more events than the list has."""
        return bool(self.result_count >= COUNTED)


class ValuesFilter(admin.AllValuesFieldListFilter):
    """Filters by the values that a column has, at most `MAX_VALUES`; the column must have an index."""

    def __init__(self, field: Any, request: HttpRequest, params: Any, model: Any, model_admin: Any, field_path: str):
        super().__init__(field, request, params, model, model_admin, field_path)
        self.lookup_choices = _values(model_admin.get_queryset(request), field.name)


class InboxFilter(ValuesFilter):
    """Filters by the name of the inbox, if there are several."""

    def has_output(self) -> bool:
        """Return whether there is a choice."""
        return bool(self.used_parameters) or len(self.lookup_choices) > 1


def _values(rows: QuerySet, column: str) -> list[str]:
    """Read the different values of a column, in order: one look into its index for each, instead of all rows."""
    values: list[str] = []
    rows = rows.order_by(column).values_list(column, flat=True)
    while len(values) < MAX_VALUES:
        value = (rows.filter(**{f"{column}__gt": values[-1]}) if values else rows).first()
        if value is None:
            break
        values.append(value)
    return values


class ReceivedFilter(admin.ListFilter):
    """Filters by the first and the last day on which an event was received, in the current time zone."""

    title = _("received")
    template = "envoyou_django/admin/received_filter.html"
    parameter_names = ("received_from", "received_until")

    def __init__(self, request: HttpRequest, params: dict[str, Any], model: Any, model_admin: admin.ModelAdmin) -> None:
        super().__init__(request, params, model, model_admin)
        for name in self.parameter_names:
            if name in params:
                self.used_parameters[name] = params.pop(name)[-1]

    def has_output(self) -> bool:
        """Return true."""
        return True

    def expected_parameters(self) -> Sequence[str]:
        """Return the names of the parameters."""
        return self.parameter_names

    def choices(self, changelist: ChangeList) -> Iterator[dict[str, Any]]:
        """Yield what the form needs: its fields, and the other parameters of the page."""
        others = parse_qsl(changelist.get_query_string(remove=[*self.parameter_names, PAGE_VAR]).removeprefix("?"))
        labels = (_("from"), _("until"))
        yield {
            "fields": [
                (name, label, self.used_parameters.get(name, ""))
                for name, label in zip(self.parameter_names, labels, strict=True)
            ],
            "others": others,
        }

    def queryset(self, request: HttpRequest, queryset: ProcessedEventQuerySet) -> ProcessedEventQuerySet:
        """Return the events received on the selected days."""
        first, last = (self.used_parameters.get(name) for name in self.parameter_names)
        if first:
            queryset = queryset.filter(received_at__gte=_day(first)[0])
        if last:
            queryset = queryset.filter(received_at__lt=_day(last)[1])
        return queryset


class DayFilter(admin.SimpleListFilter):
    """Filters by the day on which an event was received, in the current time zone."""

    title = _("day")
    parameter_name = "day"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, Any]]:
        """Return today and the days before it."""
        today = conf.current_time().astimezone(timezone.get_current_timezone()).date()
        names = {0: _("Today"), 1: _("Yesterday")}
        days = [today - timedelta(days=ago) for ago in range(DAYS)]
        return [(day.isoformat(), names.get(ago) or formats.date_format(day, "l j F")) for ago, day in enumerate(days)]

    def queryset(self, request: HttpRequest, queryset: ProcessedEventQuerySet) -> ProcessedEventQuerySet:
        """Return the events received on the selected day."""
        if self.value() is None:
            return queryset
        begin, end = _day(self.value())
        return queryset.filter(received_at__gte=begin, received_at__lt=end)


def _day(text: str) -> tuple[datetime, datetime]:
    """Return the begin and the end of a day in the current time zone, in UTC."""
    try:
        day = date.fromisoformat(text)
        return _midnight(day), _midnight(day + timedelta(days=1))
    except (ValueError, OverflowError) as error:
        raise IncorrectLookupParameters(error) from error


def _midnight(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time.min)).astimezone(UTC)


def search(rows: ProcessedEventQuerySet, term: str) -> ProcessedEventQuerySet:
    """Return those of `rows` whose own id or whose object's id equals `term`.

    Substrings do not match: no index supports such a search, so it would be slow in a table of millions of rows.
    """
    return rows.filter(Q(event_id=term) | Q(object_key=object_key(term)))
