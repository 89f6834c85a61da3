"""The figures of a window, as a table."""

from __future__ import annotations

from datetime import timedelta

from rich.console import Group
from rich.table import Table
from rich.text import Text

from envoyou_core.analytics.summary import DeliveryCounts, Durations, Summary
from envoyou_core.redaction import printable

__all__ = ["summary_tables"]


def summary_tables(summary: Summary) -> Group:
    """Return the figures of a window: the rates, then one row for each type of event, and one for each handler."""
    tables = [_rates(summary)]
    if summary.types:
        tables.append(_types(summary))
    if summary.handlers:
        tables.append(_handlers(summary))
    return Group(*(part for table in tables for part in (Text(), table)))


def _rates(summary: Summary) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    deliveries, attempts, events = summary.deliveries, summary.attempts, summary.events
    table.add_row("last", _duration(summary.until - summary.since))
    table.add_row("delivery rate", f"{_percent(deliveries.rate)} of {deliveries.genuine} genuine deliveries")
    table.add_row("deliveries", _answers(deliveries))
    table.add_row("response time", _durations(summary.response))
    table.add_row("error rate", f"{_percent(attempts.error_rate)} of {attempts.number} handler calls")
    table.add_row("event volume", f"{summary.events_per_hour:.1f} an hour")
    ends = {
        "processed": events.processed,
        "ignored": events.ignored,
        "to be retried": events.retried,
        "dead": events.dead,
    }
    table.add_row("events", ", ".join(f"{number} {word}" for word, number in ends.items()))
    table.add_row("processing", _durations(summary.processing))
    return table


def _answers(deliveries: DeliveryCounts) -> str:
    numbers = {
        "accepted": deliveries.accepted,
        "duplicates": deliveries.duplicates,
        "invalid": deliveries.invalid,
        "unavailable (503)": deliveries.unavailable,
        "unauthorized (401)": deliveries.unauthorized,
        "refused": deliveries.refused,
        "through the spool": deliveries.spooled,
    }
    always = {"accepted", "duplicates"}
    return ", ".join(f"{number} {word}" for word, number in numbers.items() if number or word in always)


def _types(summary: Summary) -> Table:
    table = _table("type", "accepted", "duplicates", "processed", "retried", "dead")
    for name, of in summary.types.items():
        numbers = (of.accepted, of.duplicates, of.events.processed, of.events.retried, of.events.dead)
        table.add_row(Text(printable(name)), *map(str, numbers))
    return table


def _handlers(summary: Summary) -> Table:
    table = _table("handler", "calls", "failed", "error rate", "p50", "p95")
    for name, of in summary.handlers.items():
        calls = (str(of.attempts.number), str(of.attempts.failed), _percent(of.attempts.error_rate))
        table.add_row(Text(printable(name)), *calls, _seconds(of.durations.p50), _seconds(of.durations.p95))
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first, overflow="fold")
    for column in others:
        table.add_column(column, justify="right")
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _durations(durations: Durations) -> str:
    if not durations.number:
        return "-"
    return f"p50 {_seconds(durations.p50)}, p95 {_seconds(durations.p95)}, p99 {_seconds(durations.p99)}"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _duration(window: timedelta) -> str:
    minutes = window.total_seconds() / 60
    if minutes < 60:
        number, unit = minutes, "minute"
    elif minutes < 48 * 60:
        number, unit = minutes / 60, "hour"
    else:
        number, unit = minutes / (24 * 60), "day"
    return unit if number == 1 else f"{number:g} {unit}s"
