"""The commands `envoyou events`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import typer

from envoyou_core.cli.documents import event_as_json, event_details_as_json
from envoyou_core.cli.output import (
    fail,
    is_narrow,
    print_json_line,
    print_line,
    print_note,
    print_result,
    print_text,
    progress,
    report_usage_errors,
    reporting,
)
from envoyou_core.cli.parameters import (
    AS_JSON,
    LIMIT,
    OF_OBJECT,
    OF_STATUS,
    OF_TENANT,
    OF_TYPE,
    read_words,
    requeuable_status,
    statuses,
)
from envoyou_core.cli.tables import event_details, event_line, events_table
from envoyou_core.cli.tail import MAX_WINDOW, WINDOW, Tail, follow
from envoyou_core.cli.target import inbox_of, webhooks_of
from envoyou_core.inbox import REQUEUABLE, InboxRecord, Status
from envoyou_core.patterns import matches_any
from envoyou_core.payloads import decoded, excerpt_of
from envoyou_core.webhooks import Webhooks

__all__ = ["events"]

events = typer.Typer(no_args_is_help=True, help="List, show, follow, requeue and erase events.")


@events.command("list")
@reporting
def list_events(
    context: typer.Context,
    status: OF_STATUS = None,
    type: OF_TYPE = None,
    object_id: OF_OBJECT = None,
    limit: LIMIT = 20,
    as_json: AS_JSON = False,
) -> None:
    """List the newest events. Payloads are not shown."""
    with report_usage_errors():
        records = inbox_of(context).list(status=status, type=type, object_id=object_id, limit=limit)
    print_result(
        [event_as_json(record) for record in records] if as_json else events_table(records, narrow=is_narrow())
    )


@events.command()
@reporting
def show(
    context: typer.Context,
    event_id: Annotated[str, typer.Argument(metavar="EVENT_ID", show_default=False)],
    payload: Annotated[
        bool, typer.Option("--payload", help="Also print the payload, with its personal values masked.")
    ] = False,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Print the payload and the kept headers as they are.")
    ] = False,
    as_json: AS_JSON = False,
) -> None:
    """Show one event with its attempts and their tracebacks."""
    record, in_spool = _get_event(webhooks_of(context), event_id)
    body = record.event.body if payload or reveal else None
    if as_json:
        document = event_details_as_json(record, in_spool=in_spool, reveal=reveal)
        print_result(document if body is None else {**document, "payload": decoded(body, masked=not reveal)})
        return
    print_result(event_details(record, in_spool=in_spool, reveal=reveal))
    if body is not None:
        excerpt = excerpt_of(body, masked=not reveal)
        print_text(f"\n{excerpt.text}")
        if not excerpt.is_complete:
            print_note("The payload is shown in part; --json --reveal prints all of it.")


@events.command()
@reporting
def tail(
    context: typer.Context,
    type: OF_TYPE = None,
    status: OF_STATUS = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, max=WINDOW, help="How many events to begin with.")] = 10,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks at the inbox.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Follow the events: print each that comes, and each change of its status. Ctrl-C ends it, with the exit code 130.

    It follows the newest 100 events, and older ones for as long as they are unfinished.
    """

    def is_selected(record: InboxRecord) -> bool:
        return (type is None or matches_any((type,), record.event.type)) and status in {None, record.status}

    def print_record(record: InboxRecord) -> None:
        if as_json:
            print_json_line(event_as_json(record))
        else:
            print_line(event_line(record))

    following = Tail(inbox_of(context))
    begun = [record for record in following.look() if is_selected(record)]
    for record in begun[max(0, len(begun) - lines) :]:
        print_record(record)
    for record in follow(following, partial(time.sleep, interval)):
        if following.has_gap:
            following.has_gap = False
            print_note(f"More than {MAX_WINDOW} events came at once; some are not shown.")
        if is_selected(record):
            print_record(record)


@events.command()
@reporting
def requeue(
    context: typer.Context,
    event_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="EVENT_ID", help="The ids of events; - reads them from standard input."),
    ] = None,
    status: Annotated[
        Status | None,
        typer.Option(
            parser=requeuable_status,
            metavar="STATUS",
            autocompletion=lambda: statuses(REQUEUABLE),
            help=f"Only events with this status: {', '.join(statuses(REQUEUABLE))}.",
        ),
    ] = None,
    type: OF_TYPE = None,
    object_id: OF_OBJECT = None,
    tenant: OF_TENANT = None,
    drop_handler: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Give up this handler, which was removed: it will never run for the events that owe it; repeatable. "
            "Only events that owe it are requeued.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the events.")] = False,
    as_json: AS_JSON = False,
) -> None:
    """Requeue failed, ignored and dead events, with all their attempts. Handlers that succeeded do not run again.

    Name events by their ids, or select them by status, type, object or a handler to drop. The exit code is 1 if one
    that was named is not requeued.
    """
    webhooks = webhooks_of(context)
    webhooks.inbox.open()
    ids = read_words(event_ids or [])
    select = partial(webhooks.inbox.requeue, status=status, type=type, object_id=object_id, tenant=tenant)
    if drop_handler:
        select = partial(select, drop_handlers=drop_handler)
    with report_usage_errors():
        if event_ids:
            counts = {event_id: select(event_id, dry_run=dry_run) for event_id in ids}
            requeued, refused = sum(counts.values()), [event_id for event_id, count in counts.items() if not count]
        else:
            requeued, refused = _requeue_all(select, dry_run=dry_run), []
    why = {event_id: _why_not_requeued(webhooks, event_id, drop_handler or []) for event_id in refused}
    reasons = [f"cannot requeue {event_id}: {reason}" for event_id, reason in why.items()]
    if as_json:
        print_result({"would_be_requeued" if dry_run else "requeued": requeued, "refused": refused})
    elif requeued or not refused:
        print_line(f"{'Would be requeued' if dry_run else 'Requeued'}: {requeued}.")
    for reason in reasons[:-1]:
        print_note(f"Error: {reason}")
    if reasons:
        fail(reasons[-1])


def _requeue_all(select: Callable[..., int], *, dry_run: bool) -> int:
    if dry_run:
        return select(dry_run=True)
    with progress("Requeueing", lambda: select(dry_run=True)) as advance:
        return select() if advance is None else select(on_progress=advance)


@events.command()
@reporting
def erase(
    context: typer.Context,
    object_id: Annotated[
        str, typer.Argument(metavar="OBJECT_ID", help="The id of the object, such as a user.", show_default=False)
    ],
    tenant: OF_TENANT = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AS_JSON = False,
) -> None:
    """Delete all payloads about an object, such as a person, for ever; unfinished events lose theirs when they end."""
    inbox = inbox_of(context)
    confirm(f"Delete all payloads about {object_id!r}?", yes=yes)
    erased = inbox.erase(object_id, tenant=tenant)
    if as_json:
        print_result({"erased": erased})
    else:
        print_line(f"Erased: {erased} events.")


def confirm(question: str, *, yes: bool) -> None:
    """Ask on the terminal, unless `yes`.

    Raises:
        Abort: the answer is no.
        BadParameter: there is no terminal to ask on.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("this cannot be undone: confirm it with --yes")
    typer.confirm(question, abort=True, err=True)


def _get_event(webhooks: Webhooks, event_id: str) -> tuple[InboxRecord, bool]:
    """Return an event and whether it is in the spool, which is searched even if the inbox is unavailable."""
    failure = None
    try:
        webhooks.inbox.open()
        if (record := webhooks.inbox.get(event_id)) is not None:
            return record, False
    except Exception as error:
        failure = error
    if webhooks.spool is not None and (record := webhooks.spool.get(event_id)) is not None:
        return record, True
    if failure is not None:
        raise failure
    fail(f"event not found: {event_id}")


def _why_not_requeued(webhooks: Webhooks, event_id: str, dropped: Sequence[str]) -> str:
    record = webhooks.inbox.get(event_id)
    if record is None:
        in_spool = webhooks.spool is not None and webhooks.spool.get(event_id) is not None
        return "it is still in the spool" if in_spool else "event not found"
    if dropped and not record.owed.keys() & set(dropped):
        return f"it does not owe the handler {' or '.join(dropped)}"
    if record.status not in REQUEUABLE:
        return f"its status is {record.status}"
    if record.scrubbed_at is not None:
        return "its payload was deleted"
    return f"its status is {record.status}, and its type is {record.event.type}"
