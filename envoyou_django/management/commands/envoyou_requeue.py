"""`manage.py envoyou_requeue`: bring failed, ignored and dead events back to their handlers."""

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
    """Requeues one event, or all of a kind."""

    help = (
        "Bring failed, ignored and dead events back, with all attempts before them; handlers that were done stay done. "
        "Name one by its id, or several by their state or type."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("event_id", nargs="?", help="One event, by its id.")
        parser.add_argument("--status", choices=sorted(REQUEUABLE), help="Only events in this state.")
        parser.add_argument("--type", help="Only events of this type, such as user.created.")
        parser.add_argument("--tenant", help="Only events of this tenant.")
        parser.add_argument("--dry-run", action="store_true", help="Only say how many it would be.")
        add_json_argument(parser)

    def look_after_inbox(self, options: dict[str, Any]) -> None:
        """Requeue them."""
        event_id, status = options["event_id"], options["status"]
        inbox = cast(OrmInbox, webhooks.inbox)
        try:
            found = inbox.requeuable(event_id, status=status, type=options["type"], tenant=options["tenant"])
        except ValueError as error:
            raise CommandError(str(error), returncode=2) from error
        if options["dry_run"]:
            count = found.count()
            self.say(options, {"requeued": 0, "would_be_requeued": count}, f"Would be requeued: {count}.")
        else:
            count = self._requeue(found)
            self.say(options, {"requeued": count}, f"Requeued: {count}.")
        if event_id is not None and not count:
            raise CommandError(f"There is no such event, or not one that can be requeued: {event_id}")

    def _requeue(self, found: ProcessedEventQuerySet) -> int:
        now = datetime.fromtimestamp(conf.clock()(), UTC)
        keys = list(found.order_by("pk").values_list("pk", flat=True))
        requeued = 0
        with progress(self.stderr, "Requeueing", len(keys)) as advance:
            for start in range(0, len(keys), REQUEUE_BATCH):
                batch = keys[start : start + REQUEUE_BATCH]
                requeued += found.filter(pk__in=batch).requeue(now)
                advance(len(batch))
        return requeued
