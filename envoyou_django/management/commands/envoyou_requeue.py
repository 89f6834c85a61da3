"""`manage.py envoyou_requeue`: handle failed, ignored and dead events again."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any, cast

from django.core.management.base import CommandError

from envoyou_core.inbox import REQUEUABLE
from envoyou_django import conf, webhooks
from envoyou_django.inbox.inbox import OrmInbox
from envoyou_django.management.inbox_command import InboxCommand, add_json_argument
from envoyou_django.management.progress import progress
from envoyou_django.models import REQUEUE_BATCH, ProcessedEventQuerySet

__all__ = ["Command"]


class Command(InboxCommand):
    """Requeues one event, or all with a status or type."""

    help = (
        "Requeue failed, ignored and dead events, with their attempts counted from zero; handlers that have succeeded "
        "are not run again. Give the id of one event, or select several by status or type."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("event_id", nargs="?", help="The id of one event.")
        parser.add_argument("--status", choices=sorted(REQUEUABLE), help="Only events with this status.")
        parser.add_argument("--type", help="Only events of this type, such as user.created.")
        parser.add_argument("--tenant", help="Only events of this tenant.")
        parser.add_argument("--dry-run", action="store_true", help="Only count the events that would be requeued.")
        add_json_argument(parser)

    def run(self, options: dict[str, Any]) -> None:
        """Requeue the events."""
        event_id, status = options["event_id"], options["status"]
        inbox = cast(OrmInbox, webhooks.inbox)
        try:
            events = inbox.requeuable(event_id, status=status, type=options["type"], tenant=options["tenant"])
        except ValueError as error:
            raise CommandError(str(error), returncode=2) from error
        if options["dry_run"]:
            count = events.count()
            self.write_result(options, {"requeued": 0, "would_be_requeued": count}, f"Would be requeued: {count}.")
        else:
            count = self._requeue(events)
            self.write_result(options, {"requeued": count}, f"Requeued: {count}.")
        if event_id is not None and not count:
            raise CommandError(f"No such event, or its status does not allow a requeue: {event_id}")

    def _requeue(self, events: ProcessedEventQuerySet) -> int:
        now = datetime.fromtimestamp(conf.clock()(), UTC)
        keys = list(events.order_by("pk").values_list("pk", flat=True))
        requeued = 0
        with progress(self.stderr, "Requeueing", len(keys)) as advance:
            for start in range(0, len(keys), REQUEUE_BATCH):
                batch = keys[start : start + REQUEUE_BATCH]
                requeued += events.filter(pk__in=batch).requeue(now)
                advance(len(batch))
        return requeued
