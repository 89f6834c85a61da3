"""`manage.py envoyou_prune`: delete finished events after their retention period."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError

from envoyou_core.adapter import duration
from envoyou_core.inbox import FINISHED, Status
from envoyou_django import webhooks
from envoyou_django.management.inbox_command import InboxCommand, add_json_argument
from envoyou_django.management.progress import progress

__all__ = ["Command"]

DEFAULT_STATUSES = (Status.PROCESSED, Status.IGNORED)


def _age(text: str) -> timedelta:
    try:
        return duration(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error


class Command(InboxCommand):
    """Deletes events by the retention settings, or those older than a given age."""

    help = (
        "Delete what the retention settings no longer keep or, with --older-than, the events that were finished longer "
        "ago than that."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--older-than", type=_age, metavar="AGE", help="For example 90m, 12h, 30d (or 30) or 2w.")
        parser.add_argument(
            "--status",
            action="append",
            choices=sorted(FINISHED),
            help="With --older-than: only events with this status. Repeatable; the default is processed and ignored.",
        )
        add_json_argument(parser)

    def run(self, options: dict[str, Any]) -> None:
        """Delete the events."""
        older_than, statuses = options["older_than"], options["status"]
        if older_than is None and statuses:
            raise CommandError("--status requires --older-than", returncode=2)
        with progress(self.stderr, "Deleting", None):
            if older_than is None:
                report = webhooks.apply_retention()
            else:
                pruned = webhooks.inbox.prune(older_than, tuple(statuses or DEFAULT_STATUSES))
        if older_than is None:
            document = asdict(report)
            text = (
                f"Deleted: {report.pruned} events, the payloads of {report.scrubbed}, {report.marks} marks, "
                f"{report.rejected} rejected deliveries."
            )
        else:
            document, text = {"pruned": pruned}, f"Deleted: {pruned} events."
        self.write_result(options, document, text)
