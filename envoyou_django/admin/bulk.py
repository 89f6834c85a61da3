"""Carries out a confirmed action in steps: each request changes events for about a second, and its page continues.

So no request outlives the time limit of a server, however many events there are. What a request has changed is
committed batch by batch, each with its entries in the history. If the page is closed, the rest stays as it is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Final

from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import BadRequest
from django.db import router, transaction
from django.db.models import Max, Min

from envoyou_django.admin.actions import EventAction
from envoyou_django.inbox.bulk import change_in_batches
from envoyou_django.models import ProcessedEvent, ProcessedEventQuerySet

__all__ = ["Progress", "advance"]

STEP: Final = 1.0
"""Seconds after which a request begins no further batch."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an action is. Its values are fields of the form that continues it.

    Attributes:
        start: less than the smallest key there was when the user was asked.
        until: the largest key at that time. Events that arrived later are left out.
        after: the largest key that was considered.
        done: the number of events that are changed.
        is_finished: whether no events are left.
    """

    start: int
    until: int
    after: int
    done: int = 0
    is_finished: bool = False

    @classmethod
    def begin(cls, rows: ProcessedEventQuerySet) -> Progress:
        """Return the progress of an action that begins now, on events of the database of `rows`."""
        keys = ProcessedEvent.objects.using(rows.db).aggregate(first=Min("pk"), last=Max("pk"))
        start = (keys["first"] or 1) - 1
        return cls(start=start, until=keys["last"] or start, after=start)

    @classmethod
    def of(cls, form: Mapping[str, Any]) -> Progress:
        """Read the fields of a form.

        Raises:
            BadRequest: a field is missing or not a number.
        """
        try:
            return cls(int(form["start"]), int(form["until"]), int(form["after"]), int(form["done"]))
        except (KeyError, ValueError) as error:
            raise BadRequest("start, until, after and done must be numbers") from error

    @property
    def fields(self) -> dict[str, int]:
        """The fields of the form that continues the action."""
        return {"start": self.start, "until": self.until, "after": self.after, "done": self.done}

    @property
    def percent(self) -> int:
        """The part of the table that was considered. To count what is left would take longer than to change it."""
        return 100 * (self.after - self.start) // max(1, self.until - self.start)


def advance(
    rows: ProcessedEventQuerySet, action: EventAction, progress: Progress, user_id: int, now: datetime
) -> Progress:
    """Change events for about a second, at least one batch, and write it into the history of each.

    Args:
        rows: the selected events.
        action: the action.
        progress: how far it is.
        user_id: the user who confirmed it.
        now: the time of the change.
    """
    ends_at = time.monotonic() + STEP
    record = partial(_record, action, user_id, rows.db)
    remaining = rows.filter(pk__lte=progress.until)
    for batch in change_in_batches(remaining, action.operation, now, after=progress.after, record=record):
        progress = replace(progress, after=batch.last_key, done=progress.done + len(batch.rows))
        if time.monotonic() >= ends_at:
            return progress
    return replace(progress, is_finished=True)


def _record(action: EventAction, user_id: int, alias: str, events: Sequence[ProcessedEvent]) -> None:
    log: Any = partial(LogEntry.objects.log_actions, user_id, events, CHANGE, str(action.log_message))
    if router.db_for_write(LogEntry) == alias:
        log()
    else:
        # In another database, an entry must not be committed before the change that it is about.
        transaction.on_commit(log, using=alias)
