"""`manage.py envoyou_stats`: how many events are in each state, and how far behind the workers are."""

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
    # Elsewhere a bare number is one of days, which nobody means here.
    if text[-1:].isdigit():
        raise ArgumentTypeError(f"{text!r} has no unit: write {text}s, or 5m")
    try:
        return duration(text).total_seconds()
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error


class Command(InboxCommand):
    """Counts events by state."""

    help = "Count the events in each state, and say for how long the first that is due has waited."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--max-overdue",
            type=_seconds,
            metavar="AGE",
            help="End with 1 where one has waited for longer, such as 5m.",
        )
        parser.add_argument(
            "--exact", action="store_true", help="Count all processed and ignored events, however many there are."
        )
        add_json_argument(parser)

    def look_after_inbox(self, options: dict[str, Any]) -> None:
        """Count them."""
        stats, paused = webhooks.inbox.stats(exact=options["exact"]), webhooks.paused
        self.say(
            options,
            stats_as_json(stats, paused, inbox_location=location_of(webhooks.inbox)),
            "\n".join(self._lines(stats, paused)),
        )
        longest = options["max_overdue"]
        if longest is not None and stats.overdue > longest:
            raise CommandError(f"An event has waited for {stats.overdue:.0f} s, longer than {longest:.0f} s")

    def _lines(self, stats: InboxStats, paused: frozenset[str]) -> list[str]:
        styles = {Status.DEAD: self.style.ERROR, Status.FAILED: self.style.WARNING}
        lines = []
        for status, count in stats.by_status.items():
            line = f"{status:<12}{count_text(stats, status):>10}"
            lines.append(styles.get(status, str)(line) if count else line)
        lines.append(f"{'total':<12}{count_text(stats):>10}")
        lines.append(f"{'overdue':<12}{f'{stats.overdue:.0f} s':>10}")
        lines.append(f"{'paused':<12}{', '.join(sorted(paused)) or 'nothing':>10}")
        lines.append(f"inbox       {location_of(webhooks.inbox)}")
        return lines
