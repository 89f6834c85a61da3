"""The commands of `envoyou`. Framework integrations offer the same commands for the `Webhooks` of an application."""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from envoyou_core.cli.output import fail, print_line, print_result, report_errors, report_usage_errors
from envoyou_core.cli.rejected import list_rejected, retry_rejected, show_rejected
from envoyou_core.cli.sending import secret_from_environment, send_sample
from envoyou_core.cli.tables import event_details, events_table, stats_table
from envoyou_core.cli.values import duration, event_as_json, event_details_as_json, json_object, stats_as_json
from envoyou_core.errors import ConfigurationError, WorkerStuckError, describe
from envoyou_core.inbox import REQUEUABLE, Inbox, InboxRecord, Status, open_inbox
from envoyou_core.inbox.files import location_of, refuse_creation
from envoyou_core.observability.redacted import RedactedLogger
from envoyou_core.testing import SAMPLE_WEBHOOK_ID
from envoyou_core.webhooks import Webhooks

__all__ = ["Source", "app", "application"]

log = RedactedLogger("envoyou")

EVENT_ID = Annotated[str | None, typer.Argument(help="The id of one event.", show_default=False)]
OF_STATUS = Annotated[Status | None, typer.Option(help="Only events with this status.")]
OF_TYPE = Annotated[str | None, typer.Option("--type", help="Only events of this type.")]
AS_JSON = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
PAUSED_TYPE = Annotated[
    str | None, typer.Option("--type", help="An event type, such as user.created, 'user.*' or '*'.")
]
PAUSED_HANDLER = Annotated[str | None, typer.Option("--handler", help="The name of a handler, instead of a type.")]


class LogLevel(StrEnum):
    """The lowest level that a worker logs, by the names of `logging`."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True)
class Source:
    """How a command finds its `Webhooks`.

    Attributes:
        parameter: a `typer` declaration of the argument or option, whose value is a string.
        find: returns the `Webhooks` for that value; raises `ConfigurationError` if there are none.
        default: the value if the parameter is optional and omitted.
    """

    parameter: Any
    find: Callable[[str], Webhooks]
    default: Any = inspect.Parameter.empty


def application(source: Source, *, migrate: Callable[..., None] | None = None) -> typer.Typer:
    """Return the command line for the `Webhooks` that `source` finds.

    Args:
        source: finds the `Webhooks`.
        migrate: the command that creates the tables; by default, it does so for the inbox of those `Webhooks`.
    """
    commands = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    commands.callback()(envoyou)
    commands.command()(_with_webhooks(source, worker))
    for command in (stats, events, requeue, pause, resume, prune):
        commands.command()(_with_webhooks(source, _without_creating_files(command)))
    commands.add_typer(_rejected_commands(source), name="rejected")
    commands.command()(send)
    commands.command("migrate")(migrate or _with_webhooks(source, migrate_inbox_of))
    return commands


def _rejected_commands(source: Source) -> typer.Typer:
    commands = typer.Typer(
        no_args_is_help=True, help="Genuine deliveries that were answered 400 and are kept: list, show and retry them."
    )
    for name, command in (("list", list_rejected), ("show", show_rejected), ("retry", retry_rejected)):
        commands.command(name)(_with_webhooks(source, _without_creating_files(command)))
    return commands


def _with_webhooks(source: Source, command: Callable[..., None]) -> Callable[..., None]:
    """Replace the command's first parameter, its `Webhooks`, with the parameter of `source` that names them.

    Each command takes that parameter itself: an argument of the group would have to stand before the command's name,
    and `send` takes none.
    """

    @wraps(command)
    def run(webhooks: str, **options: Any) -> None:
        with report_errors():
            command(source.find(webhooks), **options)

    first, *others = inspect.signature(command, eval_str=True).parameters.values()
    first = first.replace(annotation=Annotated[str, source.parameter], default=source.default)
    # Keyword-only, because the first one may have a default that the others do not have.
    others = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in others]
    run.__signature__ = inspect.Signature([first, *others])  # type: ignore[attr-defined]
    return run


def _without_creating_files(command: Callable[..., None]) -> Callable[..., None]:
    """Make the command fail if a SQLite file is missing.

    A file that it created would be an empty inbox, and might belong to another user than the server's.
    """

    @wraps(command)
    def run(webhooks: Webhooks, **options: Any) -> None:
        for store in (webhooks.inbox, webhooks.spool):
            refuse_creation(store, at_absolute_path=True)
        command(webhooks, **options)

    return run


def envoyou() -> None:
    """Operate EnvoyOU webhooks: run a worker, and inspect and repair the inbox."""


def worker(
    webhooks: Webhooks,
    shutdown_timeout: Annotated[
        float | None,
        typer.Option(help="Seconds to finish running handlers after SIGTERM; by default, as configured."),
    ] = None,
    log_level: Annotated[
        LogLevel | None,
        typer.Option(case_sensitive=False, help="The lowest level to log; by default info, or as configured."),
    ] = None,
) -> None:
    """Run a worker process until SIGTERM or SIGINT. A second signal ends it at once."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if log_level is not None:
        logging.getLogger("envoyou").setLevel(log_level)
    try:
        webhooks.run_worker(shutdown_timeout=shutdown_timeout)
    except ConfigurationError as error:
        fail(f"cannot start the worker: {error}")
    except WorkerStuckError as error:
        fail(f"the worker has ended and must be restarted: {error}")
    except Exception as error:
        log.error("worker failed", exc_info=error)
        fail(f"the worker failed: {describe(error)}")


def stats(
    webhooks: Webhooks,
    exact: Annotated[bool, typer.Option("--exact", help="Count all events, even if there are very many.")] = False,
    as_json: AS_JSON = False,
) -> None:
    """Show the number of events by status, how long the oldest due event has waited, and what is paused.

    If there is a spool, also the number of events in it, even while the inbox is unavailable.
    """
    counts = spooled = failure = None
    paused = frozenset[str]()
    try:
        # An inbox written by an application may not support the argument.
        counts = webhooks.inbox.stats(exact=True) if exact else webhooks.inbox.stats()
        paused = webhooks.paused
    except Exception as error:
        failure = error
    try:
        spooled = None if webhooks.spool is None else webhooks.spool.stats()
    except Exception as error:
        failure = failure or error
    if counts is not None or spooled is not None:
        render = stats_as_json if as_json else stats_table
        print_result(render(counts, paused, spooled, location_of(webhooks.inbox), location_of(webhooks.spool)))
    if failure is not None:
        raise failure


@report_usage_errors()
def events(
    webhooks: Webhooks,
    event_id: EVENT_ID = None,
    status: OF_STATUS = None,
    type: OF_TYPE = None,
    object_id: Annotated[
        str | None, typer.Option("--object", help="Only events about the object with this id.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="The maximum number of events; the newest come first.")] = 20,
    as_json: AS_JSON = False,
) -> None:
    """List events, or show one event with its attempts. Payloads are not shown."""
    if event_id is None:
        records = webhooks.inbox.list(status=status, type=type, object_id=object_id, limit=limit)
        print_result([event_as_json(record) for record in records] if as_json else events_table(records))
        return
    record, in_spool = _get_event(webhooks, event_id)
    details = event_details_as_json if as_json else event_details
    print_result(details(record, in_spool=in_spool))


@report_usage_errors()
def requeue(webhooks: Webhooks, event_id: EVENT_ID = None, status: OF_STATUS = None, type: OF_TYPE = None) -> None:
    """Requeue failed, ignored and dead events, with all their attempts. Handlers that succeeded do not run again.

    Select one event by its id, or several by status or type.
    """
    requeued = webhooks.inbox.requeue(event_id, status=status, type=type)
    if event_id is not None and not requeued:
        fail(f"cannot requeue {event_id}: {_why_not_requeued(*_get_event(webhooks, event_id))}")
    print_line(f"Requeued: {requeued}.")


@report_usage_errors()
def pause(webhooks: Webhooks, type: PAUSED_TYPE = None, handler: PAUSED_HANDLER = None) -> None:
    """Pause a type of event, or all events that a handler handles, in all processes until they are resumed."""
    webhooks.pause(type=type, handler=handler)
    _print_paused(webhooks)


@report_usage_errors()
def resume(webhooks: Webhooks, type: PAUSED_TYPE = None, handler: PAUSED_HANDLER = None) -> None:
    """Resume a type or handler that was paused; give the same value as to `pause`."""
    webhooks.resume(type=type, handler=handler)
    _print_paused(webhooks)


@report_usage_errors()
def prune(
    webhooks: Webhooks,
    older_than: Annotated[
        timedelta | None,
        typer.Option(
            metavar="AGE",
            parser=duration,
            help="Delete events that were processed or ignored longer ago than this, such as 90m or 30d.",
        ),
    ] = None,
) -> None:
    """Delete old events: those that the retention settings name, or those older than an age."""
    if older_than is None:
        deleted = webhooks.apply_retention()
        print_line(
            f"Deleted: {deleted.pruned} events, the payloads of {deleted.scrubbed}, {deleted.marks} marks, "
            f"{deleted.rejected} rejected deliveries."
        )
    else:
        print_line(f"Deleted: {webhooks.inbox.prune(older_than)} events.")


def send(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="The URL that receives webhooks.", show_default=False)],
    secret: Annotated[
        str | None,
        typer.Option(
            help="The signing secret; by default the newest one of the settings or of ENVOYOU_WEBHOOK_SECRET.",
            show_default=False,
        ),
    ] = None,
    type: Annotated[str, typer.Option(help="The event's type.")] = "user.created",
    data: Annotated[
        dict[str, Any] | None,
        typer.Option(
            metavar="JSON", parser=json_object, help="The event's data.object; by default, a sample for its type."
        ),
    ] = None,
    webhook_id: Annotated[
        str, typer.Option(help="The endpoint's id, if secrets are configured by endpoint.")
    ] = SAMPLE_WEBHOOK_ID,
) -> None:
    """Send a sample event, signed as EnvoyOU signs it, and show the response."""
    with report_errors(), report_usage_errors():
        find_secret = context.obj or secret_from_environment
        signing_secret = find_secret(webhook_id) if secret is None else secret
        event_id, status, body = send_sample(url, type=type, secret=signing_secret, object=data, webhook_id=webhook_id)
    print_line(f"{event_id}: {status} {body}")
    if status != 200:
        raise typer.Exit(1)


def migrate_inbox_of(webhooks: Webhooks) -> None:
    """Create the inbox's tables, or migrate them to this release. Running it again changes nothing."""
    _migrate(webhooks.inbox)


def migrate_by_url(
    inbox: Annotated[
        str, typer.Option(envvar="ENVOYOU_INBOX", help="The inbox's URL, such as postgresql+psycopg://host/database.")
    ],
) -> None:
    """Create the inbox's tables, or migrate them to this release. Running it again changes nothing."""
    with report_errors("cannot migrate the inbox"):
        _migrate(open_inbox(inbox))


def _migrate(inbox: Inbox) -> None:
    from envoyou_core.inbox.sql.inbox import SqlInbox
    from envoyou_core.inbox.sql.migrations import REVISION

    if not isinstance(inbox, SqlInbox):
        raise ConfigurationError("this inbox has no tables")
    with closing(inbox):
        inbox.migrate()
    print_line(f"The inbox is ready (schema {REVISION}).")


def _get_event(webhooks: Webhooks, event_id: str) -> tuple[InboxRecord, bool]:
    """Return an event and whether it is in the spool, which is searched even if the inbox is unavailable."""
    failure = None
    try:
        if (record := webhooks.inbox.get(event_id)) is not None:
            return record, False
    except Exception as error:
        failure = error
    if webhooks.spool is not None and (record := webhooks.spool.get(event_id)) is not None:
        return record, True
    if failure is not None:
        raise failure
    fail(f"event not found: {event_id}")


def _why_not_requeued(record: InboxRecord, in_spool: bool) -> str:
    if in_spool:
        return "it is still in the spool"
    if record.status not in REQUEUABLE:
        return f"its status is {record.status}"
    if record.scrubbed_at is not None:
        return "its payload was deleted"
    return f"its status is {record.status}, and its type is {record.event.type}"


def _print_paused(webhooks: Webhooks) -> None:
    print_line(f"Paused: {', '.join(sorted(webhooks.paused)) or 'nothing'}.")


def _import_webhooks(reference: str) -> Webhooks:
    module_name, _, name = reference.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        value = getattr(importlib.import_module(module_name), name or "webhooks")
    except (ImportError, ValueError, AttributeError) as error:
        raise ConfigurationError(f"cannot import the Webhooks object {reference!r}: {describe(error)}") from error
    if not isinstance(value, Webhooks):
        raise ConfigurationError(f"expected a Webhooks object at {reference!r}, got {type(value).__name__}")
    return value


app = application(
    Source(typer.Argument(help="Your Webhooks object, such as hooks:webhooks."), _import_webhooks),
    migrate=migrate_by_url,
)
