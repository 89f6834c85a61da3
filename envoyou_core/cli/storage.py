"""The commands for the inbox as a whole: its numbers, its size and its tables."""

from __future__ import annotations

import os
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from msgspec.structs import asdict

from envoyou_core.cli.documents import process_as_json, stats_as_json
from envoyou_core.cli.events import confirm
from envoyou_core.cli.figures import summary_tables
from envoyou_core.cli.output import fail, print_line, print_result, report_usage_errors, reporting
from envoyou_core.cli.parameters import AS_JSON, duration, status, statuses
from envoyou_core.cli.tables import stats_table
from envoyou_core.cli.target import target_of, webhooks_of
from envoyou_core.errors import ConfigurationError
from envoyou_core.inbox import FINISHED, Inbox, InboxStats, Process, Status, open_inbox
from envoyou_core.inbox.files import location_of

__all__ = ["migrate", "prune", "stats"]

DEFAULT_STATUSES = (Status.PROCESSED, Status.IGNORED)


@reporting
def stats(
    context: typer.Context,
    exact: Annotated[bool, typer.Option("--exact", help="Count all events, even if there are very many.")] = False,
    max_overdue: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration, metavar="AGE", help="End with 1 if an event has been overdue for longer, such as 5m."
        ),
    ] = None,
    max_dead: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="End with 1 if more events are dead.")
    ] = None,
    max_waiting: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="End with 1 if more events wait for a handler.")
    ] = None,
    window: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration,
            metavar="AGE",
            help="Also show the rates, times and volumes of this time, such as 24h or 7d.",
        ),
    ] = None,
    as_json: AS_JSON = False,
) -> None:
    """Show the number of events by status, how long the oldest due event has waited, and what is paused.

    If there is a spool, also the number of events in it, even while the inbox is unavailable.
    """
    webhooks = webhooks_of(context)
    if window == timedelta(0):
        raise typer.BadParameter("--window must be longer than 0")
    counts = spooled = summary = failure = None
    processes: list[Process] = []
    paused = frozenset[str]()
    try:
        webhooks.inbox.open()
        # An inbox written by an application may not support the argument.
        counts = webhooks.inbox.stats(exact=True) if exact else webhooks.inbox.stats()
        paused = webhooks.paused
        processes = webhooks.inbox.processes()
        summary = None if window is None else webhooks.analytics.summary(window)
    except Exception as error:
        failure = error
    try:
        spooled = None if webhooks.spool is None else webhooks.spool.stats()
    except Exception as error:
        failure = failure or error
    if counts is not None or spooled is not None:
        now = datetime.now(UTC)
        figures = (counts, paused, spooled, location_of(webhooks.inbox), location_of(webhooks.spool))
        if as_json:
            document = stats_as_json(*figures) | {"processes": [process_as_json(each, now) for each in processes]}
            print_result(document if summary is None else document | {"window": summary.to_json()})
        else:
            print_result(stats_table(*figures, [each for each in processes if each.live_for(now) > 0]))
            if summary is not None:
                print_result(summary_tables(summary))
    if failure is not None:
        raise failure
    exceeded = [] if counts is None else _exceeded(counts, max_overdue, max_dead, max_waiting)
    if exceeded:
        fail("; ".join(exceeded))


def _exceeded(
    counts: InboxStats, max_overdue: timedelta | None, max_dead: int | None, max_waiting: int | None
) -> list[str]:
    exceeded = []
    if max_overdue is not None and counts.overdue > max_overdue.total_seconds():
        exceeded.append(f"an event is overdue by {counts.overdue:.0f} s, more than {max_overdue.total_seconds():.0f} s")
    if max_dead is not None and (dead := counts.by_status[Status.DEAD]) > max_dead:
        exceeded.append(f"{dead} events are dead, more than {max_dead}")
    if max_waiting is not None and (waiting := sum(counts.waiting.values())) > max_waiting:
        exceeded.append(f"{waiting} events wait for a handler, more than {max_waiting}")
    return exceeded


@reporting
def prune(
    context: typer.Context,
    older_than: Annotated[
        timedelta | None,
        typer.Option(
            metavar="AGE",
            parser=duration,
            help="Delete events that were processed or ignored longer ago than this, such as 90m or 30d.",
        ),
    ] = None,
    status: Annotated[
        list[Status] | None,
        typer.Option(
            parser=status,
            metavar="STATUS",
            autocompletion=lambda: statuses(FINISHED),
            help="With --older-than: only events with this status; repeatable. By default processed and ignored.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be deleted.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, if the age is zero.")] = False,
    as_json: AS_JSON = False,
) -> None:
    """Delete old events: those that the retention settings name, or those older than an age."""
    webhooks = webhooks_of(context)
    webhooks.inbox.open()
    done = "Would be deleted" if dry_run else "Deleted"
    if older_than is None:
        if status:
            raise typer.BadParameter("--status requires --older-than")
        deleted = webhooks.apply_retention(dry_run=dry_run)
        document = asdict(deleted)
        text = (
            f"{done}: {deleted.pruned} events, the payloads of {deleted.scrubbed}, {deleted.marks} marks, "
            f"{deleted.rejected} rejected deliveries."
        )
    else:
        if not older_than and not dry_run:
            confirm("Delete all of these events, however new they are?", yes=yes)
        with report_usage_errors():
            pruned = webhooks.inbox.prune(older_than, tuple(status or DEFAULT_STATUSES), dry_run=dry_run)
        document, text = {"pruned": pruned}, f"{done}: {pruned} events."
    if as_json:
        print_result({"dry_run": True, **document} if dry_run else document)
    else:
        print_line(text)


@reporting
def migrate(context: typer.Context) -> None:
    """Create the inbox's tables, or migrate them to this release. Running it again changes nothing.

    Without an application, the inbox is that of ENVOYOU_INBOX.
    """
    target = target_of(context)
    if target.migrate is not None:
        target.migrate()
        return
    if target.is_named:
        _migrate(target.find().inbox)
        return
    url = os.environ.get("ENVOYOU_INBOX")
    if not url:
        raise typer.BadParameter("name the application with --app, or set ENVOYOU_INBOX to the inbox's URL")
    _migrate(open_inbox(url))


def _migrate(inbox: Inbox) -> None:
    try:
        from envoyou_core.inbox.sql.inbox import SqlInbox
        from envoyou_core.inbox.sql.migrations import REVISION
    except ImportError as error:
        raise ConfigurationError("migrate needs SQLAlchemy 2: pip install 'envoyou-webhooks[sql]'") from error
    if not isinstance(inbox, SqlInbox):
        raise ConfigurationError("this inbox has no tables")
    with closing(inbox):
        inbox.migrate()
    print_line(f"The inbox is ready (schema {REVISION}).")
