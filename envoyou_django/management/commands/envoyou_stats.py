"""`manage.py envoyou_stats`: count events by status, and tell how far behind the workers are."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.management.base import CommandError

from envoyou_core.adapter import count_text, duration, location_of, stats_as_json
from envoyou_core.inbox import InboxStats, Status
from envoyou_django import webhooks
from envoyou_django.management.inbox_command import InboxCommand, add_json_argument

__all__ = ["Command"]


def _seconds(text: str) -> float:
    # `duration` takes a bare number as days, which is too long to be meant here.
    if text[-1:].isdigit():
        raise ArgumentTypeError(f"{text!r} has no unit; write {text}s or 5m, for example")
    try:
        return duration(text).total_seconds()
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error


class Command(InboxCommand):
    """Counts events by status."""

    help = "Count events by status, and show for how long the first due event has been overdue."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--max-overdue",
            type=_seconds,
            metavar="AGE",
            help="Exit with 1 if an event has been overdue for longer, for example 5m.",
        )
        parser.add_argument(
            "--exact", action="store_true", help="Count all processed and ignored events, however many there are."
        )
        add_json_argument(parser)

    def run(self, options: dict[str, Any]) -> None:
        """Count the events."""
        stats, paused = webhooks.inbox.stats(exact=options["exact"]), webhooks.paused
        self.write_result(
            options,
            stats_as_json(stats, paused, inbox_location=location_of(webhooks.inbox)),
            "\n".join(self._lines(stats, paused)),
        )
        max_overdue = options["max_overdue"]
        if max_overdue is not None and stats.overdue > max_overdue:
            raise CommandError(f"An event is overdue by {stats.overdue:.0f} s, more than {max_overdue:.0f} s")

    def _lines(self, stats: InboxStats, paused: frozenset[str]) -> list[str]:
        styles = {Status.DEAD: self.style.ERROR, Status.FAILED: self.style.WARNING}
        lines = []
        for status, count in stats.by_status.items():
            line = f"{status:<12}{count_text(stats, status):>10}"
            lines.append(styles.get(status, str)(line) if count else line)
        lines.append(f"{'total':<12}{count_text(stats):>10}")
        lines.append(f"{'rejected':<12}{stats.rejected:>10}")
        lines.append(f"{'overdue':<12}{f'{stats.overdue:.0f} s':>10}")
        lines += [f"waiting for {handler}: {number}" for handler, number in stats.waiting.items()]
        lines.append(f"{'paused':<12}{', '.join(sorted(paused)) or 'nothing':>10}")
        lines.append(f"inbox       {location_of(webhooks.inbox)}")
        return lines
