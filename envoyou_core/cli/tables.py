"""Events and statistics of the inbox as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from envoyou_core.cli.documents import count_text, webhook_as_json
from envoyou_core.handler import Handler
from envoyou_core.inbox import InboxRecord, InboxStats, Process, ProcessKind, RejectedDelivery, Status
from envoyou_core.payloads import MASK
from envoyou_core.redaction import printable

if TYPE_CHECKING:
    from envoyou_core.alerts import CurrentAlert
    from envoyou_core.client import Webhook

__all__ = [
    "alerts_table",
    "event_details",
    "event_line",
    "events_table",
    "handlers_table",
    "processes_table",
    "rejected_details",
    "rejected_table",
    "stats_table",
    "webhook_details",
    "webhooks_table",
]

COLORS = {
    Status.RECEIVED: "blue",
    Status.PROCESSING: "cyan",
    Status.PROCESSED: "green",
    Status.IGNORED: "dim",
    Status.FAILED: "yellow",
    Status.DEAD: "red",
}


def stats_table(
    stats: InboxStats | None,
    paused: Iterable[str],
    spool: InboxStats | None,
    inbox_location: str,
    spool_location: str,
    live: Iterable[Process] = (),
) -> Table:
    """Return the number of events by status, the wait of the oldest due event, what is paused and the spool's size.

    `live` are the live processes, whose workers are counted.

    The last rows are the locations of the inbox and the spool. Rows of a store whose statistics are `None` are omitted.
    """
    counts: list[tuple[Text, str]] = []
    if stats is not None:
        counts += [(_styled(status), count_text(stats, status)) for status in stats.by_status]
        counts += [(Text("total", "bold"), count_text(stats)), (Text("rejected"), str(stats.rejected))]
        counts.append((Text("overdue"), f"{stats.overdue:.0f} s"))
        counts += [
            (Text(printable(f"waiting for {handler}")), str(number)) for handler, number in stats.waiting.items()
        ]
        counts.append((Text("workers"), str(sum(process.kind is ProcessKind.WORKER for process in live))))
    if spool is not None:
        counts.append((Text("in the spool"), str(spool.total)))
    # Locations are long: a column that aligned them with the counts would tear those from their names.
    width = max((len(text) for _, text in counts), default=0)
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, text in counts:
        table.add_row(name, text.rjust(width))
    if stats is not None:
        table.add_row("paused", escape(", ".join(sorted(paused))) or "nothing")
    table.add_row("inbox", Text(inbox_location))
    if spool is not None:
        table.add_row("spool", Text(spool_location))
    return table


def events_table(records: Iterable[InboxRecord], *, narrow: bool = False) -> Table:
    """Return a table with one row for each event; times are in UTC.

    Args:
        records: the events.
        narrow: leave out attempts, errors and seconds, so that 80 columns are enough and an id stays on one line.
    """
    table = Table(box=None, pad_edge=False)
    details = ("attempts", "received (UTC)", "last error")
    for column in ("event", "type", "status", *(("received (UTC)",) if narrow else details)):
        table.add_column(column, overflow="fold", no_wrap=narrow and column in {"event", "status"})
    for record in records:
        cells = [Text(printable(record.event.id)), Text(printable(record.event.type)), _styled(record.status)]
        received = _format_time(record.received_at)
        if narrow:
            table.add_row(*cells, received.removesuffix(f":{record.received_at:%S}"))
        else:
            error = record.last_error or (f"unreadable: {record.unreadable}" if record.unreadable else "")
            table.add_row(*cells, str(record.attempts), received, Text(error))
    return table


def event_line(record: InboxRecord) -> str:
    """Return one event as a line of a stream; the time is that of its arrival, in UTC."""
    error = "" if record.last_error is None else f"  {record.last_error}"
    place = f"{_format_time(record.received_at)}  {record.event.id}  {record.event.type}"
    return f"{place}  {record.status.value}  {record.attempts}{error}"


def event_details(record: InboxRecord, *, in_spool: bool = False, reveal: bool = False) -> Table:
    """Return one event with its attempts and without its payload.

    Args:
        record: the event.
        in_spool: whether it is in the spool.
        reveal: with the values of the headers that were kept.
    """
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("event", Text(printable(record.event.id)))
    table.add_row("type", Text(printable(record.event.type)))
    table.add_row("status", "in the spool" if in_spool else _styled(record.status))
    if record.unreadable is not None:
        table.add_row("unreadable", Text(record.unreadable))
    table.add_row("received", f"{_format_time(record.received_at)} UTC")
    if record.next_attempt_at is not None and not in_spool:
        table.add_row("next attempt", f"{_format_time(record.next_attempt_at)} UTC")
    if record.waits_for is not None:
        table.add_row("waits for", Text(printable(f"a process with the handler {record.waits_for}")))
    for name, handler_status in record.progress.items():
        table.add_row("handler", Text(printable(f"{name}: {handler_status.value.replace('_', ' ')}")))
    for name, has_begun in record.owed.items():
        table.add_row("owes", Text(printable(f"{name}{', which has begun' if has_begun else ''}")))
    for name, value in record.headers.items():
        table.add_row("header", Text(printable(f"{name}: {value if reveal else MASK}")))
    for number, attempt in enumerate(record.history, start=1):
        outcome = "worker crashed" if attempt.status is None else attempt.status
        table.add_row(f"attempt {number}", Text(f"{_format_time(attempt.ended_at)} UTC  {outcome}"))
        for failure in attempt.failures:
            table.add_row("", Text(printable(f"{failure.handler}: {failure.error}")))
            if failure.traceback:
                table.add_row("", Text(printable(failure.traceback.rstrip(), keep="\n"), "dim"))
    return table


def handlers_table(rows: Iterable[tuple[Handler, Sequence[str]]]) -> Table:
    """Return a table with one row for each handler and what pauses it."""
    table = Table(box=None, pad_edge=False)
    for column in ("handler", "types", "kind", "order", "limits", "paused by"):
        table.add_column(column, overflow="fold")
    for handler, paused in rows:
        kind = ["async" if handler.is_async else "sync", *(["atomic"] if handler.shares_transaction else [])]
        order = [*(["ordered"] if handler.ordered else []), *(["skips stale"] if handler.stale else [])]
        limits = [
            *([] if handler.time_limit is None else [f"{handler.time_limit:g} s"]),
            *([] if handler.concurrency is None else [f"{handler.concurrency} at once"]),
        ]
        former = f" (was {', '.join(handler.was)})" if handler.was else ""
        cells = ([handler.name + former], handler.patterns, kind, order, limits)
        columns = [Text(printable(", ".join(cell))) for cell in cells]
        table.add_row(*columns, Text(printable(", ".join(paused)), "yellow"))
    return table


def processes_table(processes: Iterable[Process], now: datetime) -> Table:
    """Return a table with one row for each process that uses the inbox; times are in UTC."""
    table = Table(box=None, pad_edge=False)
    for column in ("kind", "host", "pid", "version", "started (UTC)", "last seen (UTC)", "handlers"):
        table.add_column(column, overflow="fold")
    for process in processes:
        names = ", ".join(name for name, _ in process.handlers.handlers) or "none"
        table.add_row(
            process.kind.value,
            Text(printable(process.host)),
            str(process.pid),
            Text(printable(process.version)),
            _format_time(process.started_at),
            _format_time(process.seen_at),
            Text(printable(names)),
            style=None if process.live_for(now) > 0 else "dim",
        )
    return table


def alerts_table(alerts: Iterable[CurrentAlert]) -> Table:
    """Return a table with one row for each alert; times are in UTC."""
    table = Table(box=None, pad_edge=False)
    for column in ("alert", "state", "since (UTC)", "value", "host"):
        table.add_column(column, overflow="fold")
    for alert in alerts:
        table.add_row(
            Text(printable(alert.rule)),
            Text("firing", style="red") if alert.is_firing else "resolved",
            _format_time(alert.since),
            f"{alert.value:g}",
            Text(printable(alert.host)),
        )
    return table


def rejected_table(deliveries: Iterable[RejectedDelivery]) -> Table:
    """Return a table with one row for each rejected delivery; times are in UTC."""
    table = Table(box=None, pad_edge=False)
    for column in ("key", "received (UTC)", "bytes", "reason", "error"):
        table.add_column(column, overflow="fold")
    for delivery in deliveries:
        table.add_row(
            str(delivery.key),
            _format_time(delivery.received_at),
            str(delivery.size),
            Text(printable(delivery.reason)),
            Text(printable(delivery.error)),
        )
    return table


def rejected_details(delivery: RejectedDelivery) -> Table:
    """Return one rejected delivery without its body and its signature."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("key", str(delivery.key))
    table.add_row("received", f"{_format_time(delivery.received_at)} UTC")
    table.add_row("reason", Text(printable(delivery.reason)))
    table.add_row("error", Text(printable(delivery.error)))
    table.add_row("event type header", Text(printable(delivery.event_type or "")))
    table.add_row("webhook id header", Text(printable(delivery.webhook_id or "")))
    table.add_row("tenant", Text(printable(delivery.tenant)))
    table.add_row("body", f"{delivery.size} bytes; --body prints it")
    return table


def webhooks_table(webhooks: Iterable[Webhook]) -> Table:
    """Return a table with one row for each registered webhook."""
    table = Table(box=None, pad_edge=False)
    for column in ("webhook", "active", "url", "events"):
        table.add_column(column, overflow="fold", no_wrap=column == "webhook")
    for webhook in webhooks:
        cells = [Text(printable(text)) for text in (webhook.url, ", ".join(webhook.events))]
        table.add_row(Text(printable(webhook.id)), _activity(webhook), *cells)
    return table


def webhook_details(webhook: Webhook, *, reveal: bool = False) -> Table:
    """Return one registered webhook. `reveal`: with the secret and the values of custom headers."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    document = webhook_as_json(webhook, reveal=reveal)
    table.add_row("webhook", Text(printable(webhook.id)))
    table.add_row("url", Text(printable(webhook.url)))
    table.add_row("active", _activity(webhook))
    table.add_row("events", Text(printable(", ".join(webhook.events))))
    if webhook.secret is not None:
        table.add_row("secret", Text(printable(document["secret"])))
    if (policy := webhook.retry_policy) is not None:
        delays = f"first after {policy.initial_delay} ms, then times {policy.backoff_multiplier:g}"
        table.add_row("attempts", f"{policy.max_attempts}, {delays}")
    for name, value in document["headers"].items():
        table.add_row("header", Text(printable(f"{name}: {value}")))
    for name, value in webhook.extra.items():
        table.add_row(Text(printable(name)), Text(printable(str(value))))
    return table


def _activity(webhook: Webhook) -> Text:
    if webhook.active is None:
        return Text("unknown")
    return Text("yes", "green") if webhook.active else Text("no", "yellow")


def _styled(status: Status) -> Text:
    return Text(status.value, COLORS[status])


def _format_time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"
