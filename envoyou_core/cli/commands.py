"""What `envoyou` can do. A framework's own command offers the same, for the `Webhooks` of an application."""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from envoyou_core.cli.sending import secret_from_environment, send_sample
from envoyou_core.cli.tables import event_details, events_table, stats_table
from envoyou_core.cli.values import duration, event_as_json, event_details_as_json, json_object, stats_as_json
from envoyou_core.errors import ConfigurationError, WorkerStuckError, describe
from envoyou_core.inbox import REQUEUABLE, Inbox, InboxRecord, Status, open_inbox
from envoyou_core.inbox.files import location_of, refuse_creation
from envoyou_core.observability.redacted import RedactedLogger
from envoyou_core.redaction import printable, redact
from envoyou_core.testing import SAMPLE_WEBHOOK_ID
from envoyou_core.webhooks import Webhooks

__all__ = ["Source", "app", "application"]

log = RedactedLogger("envoyou")

MAX_REASON = 2_000
"""Characters of an error: its end may say what to do."""

UNFOLDED = 10_000
"""Characters of a line: more than an event's id, its type and an error have together."""

EVENT_ID = Annotated[str | None, typer.Argument(help="One event, by its id.", show_default=False)]
OF_STATUS = Annotated[Status | None, typer.Option(help="Only events in this state.")]
OF_TYPE = Annotated[str | None, typer.Option("--type", help="Only events of this type.")]
AS_JSON = Annotated[bool, typer.Option("--json", help="For a script rather than for people.")]
PAUSED_TYPE = Annotated[
    str | None, typer.Option("--type", help="An event type, such as user.created, 'user.*' or '*'.")
]
PAUSED_HANDLER = Annotated[str | None, typer.Option("--handler", help="A handler's name, in place of a type.")]


class LogLevel(StrEnum):
    """What a worker tells at least, by the names that `logging` gives the levels."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True)
class Source:
    """Where commands find the `Webhooks` that they are for.

    Attributes:
        parameter: what a command is given to find them by, as `typer` declares an argument or option that is text.
        find: from that text to them; a `ConfigurationError` says that there are none.
        default: the text, where it may be left out.
    """

    parameter: Any
    find: Callable[[str], Webhooks]
    default: Any = inspect.Parameter.empty


def application(source: Source, *, migrate: Callable[..., None] | None = None) -> typer.Typer:
    """The commands, which are for the `Webhooks` that `source` finds.

    Args:
        source: where they are found.
        migrate: what creates the tables; by default, a command for the inbox of those `Webhooks`.
    """
    commands = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    commands.callback()(envoyou)
    commands.command()(_for_webhooks_of(source, worker))
    for command in (stats, events, requeue, pause, resume, prune):
        commands.command()(_for_webhooks_of(source, _over_existing_files(command)))
    commands.command()(send)
    commands.command("migrate")(migrate or _for_webhooks_of(source, migrate_inbox_of))
    return commands


def _for_webhooks_of(source: Source, command: Callable[..., None]) -> Callable[..., None]:
    """The command with what its `Webhooks` are found by in their place."""

    @wraps(command)
    def found(webhooks: str, **options: Any) -> None:
        with _failures_told():
            command(source.find(webhooks), **options)

    first, *others = inspect.signature(command, eval_str=True).parameters.values()
    first = first.replace(annotation=Annotated[str, source.parameter], default=source.default)
    found.__signature__ = inspect.Signature([first, *others])  # type: ignore[attr-defined]
    return found


def _over_existing_files(command: Callable[..., None]) -> Callable[..., None]:
    """The command, which creates no file: it would be an empty inbox, and perhaps another user's than the server's."""

    @wraps(command)
    def run(webhooks: Webhooks, **options: Any) -> None:
        for store in (webhooks.inbox, webhooks.spool):
            refuse_creation(store, at_absolute_path=True)
        command(webhooks, **options)

    return run


@contextmanager
def _usage_told() -> Iterator[None]:
    """Tell what an inbox refuses of the arguments as what cannot be parsed is told."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def envoyou() -> None:
    """EnvoyOU webhooks: a durable inbox, and the work behind it."""


def worker(
    webhooks: Webhooks,
    shutdown_timeout: Annotated[
        float | None, typer.Option(help="Seconds to finish what was begun, on SIGTERM; else those of the setting.")
    ] = None,
    log_level: Annotated[
        LogLevel | None,
        typer.Option(case_sensitive=False, help="What it tells, at least; else info, or as the application has it."),
    ] = None,
) -> None:
    """Work off the inbox in a process of its own, until SIGTERM or SIGINT; a second signal ends it at once."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if log_level is not None:
        logging.getLogger("envoyou").setLevel(log_level)
    try:
        webhooks.run_worker(shutdown_timeout=shutdown_timeout)
    except ConfigurationError as error:
        _fail("The worker cannot start.", str(error))
    except WorkerStuckError as error:
        _fail("The worker has ended, to be started anew.", str(error))
    except Exception as error:
        log.error("the worker has failed", exc_info=error)
        _fail("The worker has failed.", describe(error))


def stats(
    webhooks: Webhooks,
    exact: Annotated[
        bool, typer.Option("--exact", help="Count all processed and ignored events, however many there are.")
    ] = False,
    as_json: AS_JSON = False,
) -> None:
    """How many events are in each state, for how long the first that is due has waited, and what is paused.

    And how many wait in the spool, where there is one: also while the inbox is away.
    """
    counts = spooled = failure = None
    paused = frozenset[str]()
    try:
        # An application's own inbox may not know the option.
        counts = webhooks.inbox.stats(exact=True) if exact else webhooks.inbox.stats()
        paused = webhooks.paused
    except Exception as error:
        failure = error
    try:
        spooled = None if webhooks.spool is None else webhooks.spool.stats()
    except Exception as error:
        failure = failure or error
    if counts is not None or spooled is not None:
        show = stats_as_json if as_json else stats_table
        _show(show(counts, paused, spooled, location_of(webhooks.inbox), location_of(webhooks.spool)))
    if failure is not None:
        raise failure


@_usage_told()
def events(
    webhooks: Webhooks,
    event_id: EVENT_ID = None,
    status: OF_STATUS = None,
    type: OF_TYPE = None,
    object_id: Annotated[str | None, typer.Option("--object", help="Only events about it, by its id.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 20,
    as_json: AS_JSON = False,
) -> None:
    """List events, or show one with its attempts, also where it waits in the spool. Payloads are not shown."""
    if event_id is None:
        records = webhooks.inbox.list(status=status, type=type, object_id=object_id, limit=limit)
        _show([event_as_json(record) for record in records] if as_json else events_table(records))
        return
    record, in_spool = _found(webhooks, event_id)
    details = event_details_as_json if as_json else event_details
    _show(details(record, in_spool=in_spool))


@_usage_told()
def requeue(webhooks: Webhooks, event_id: EVENT_ID = None, status: OF_STATUS = None, type: OF_TYPE = None) -> None:
    """Bring failed, ignored and dead events back, with all attempts before them; handlers that were done stay done.

    Name one by its id, or several by their state or type.
    """
    requeued = webhooks.inbox.requeue(event_id, status=status, type=type)
    if event_id is not None and not requeued:
        _fail("It was not requeued:", f"{event_id} {_why_not_requeued(*_found(webhooks, event_id))}.")
    _say(f"Requeued: {requeued}.")


@_usage_told()
def pause(webhooks: Webhooks, type: PAUSED_TYPE = None, handler: PAUSED_HANDLER = None) -> None:
    """Leave events of a type, or all that a handler handles, in the inbox: in all processes, until they are resumed."""
    webhooks.pause(type=type, handler=handler)
    _say_what_is_paused(webhooks)


@_usage_told()
def resume(webhooks: Webhooks, type: PAUSED_TYPE = None, handler: PAUSED_HANDLER = None) -> None:
    """Undo a pause that named the same."""
    webhooks.resume(type=type, handler=handler)
    _say_what_is_paused(webhooks)


@_usage_told()
def prune(
    webhooks: Webhooks,
    older_than: Annotated[
        timedelta | None,
        typer.Option(
            metavar="AGE", parser=duration, help="What was processed or ignored longer ago, such as 90m or 30d."
        ),
    ] = None,
) -> None:
    """Delete what was kept for long enough: as the retention settings say, or events of some age."""
    if older_than is None:
        deleted = webhooks.apply_retention()
        _say(f"Deleted: {deleted.pruned} events, the payloads of {deleted.scrubbed}, {deleted.marks} marks.")
    else:
        _say(f"Deleted: {webhooks.inbox.prune(older_than)} events.")


def send(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="Where webhooks are received.", show_default=False)],
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
        typer.Option(metavar="JSON", parser=json_object, help="Its data.object; by default one that suits the type."),
    ] = None,
    webhook_id: Annotated[str, typer.Option(help="The endpoint's id, where secrets go by it.")] = SAMPLE_WEBHOOK_ID,
) -> None:
    """Send a sample event, signed as EnvoyOU signs it, and show the answer."""
    with _failures_told(), _usage_told():
        find_secret = context.obj or secret_from_environment
        signed_with = find_secret(webhook_id) if secret is None else secret
        event_id, status, answer = send_sample(url, type=type, secret=signed_with, object=data, webhook_id=webhook_id)
    _say(f"{event_id}: {status} {answer}")
    if status != 200:
        raise typer.Exit(1)


def migrate_inbox_of(webhooks: Webhooks) -> None:
    """Create the inbox's tables, or bring them up to this release. Running it again changes nothing."""
    _migrate(webhooks.inbox)


def _migrate(inbox: Inbox) -> None:
    from envoyou_core.inbox.sql.inbox import SqlInbox
    from envoyou_core.inbox.sql.migrations import REVISION

    if not isinstance(inbox, SqlInbox):
        raise ConfigurationError("this inbox has no tables")
    with closing(inbox):
        inbox.migrate()
    Console().print(f"[green]The inbox is ready[/] (schema {REVISION}).", highlight=False)


def _found(webhooks: Webhooks, event_id: str) -> tuple[InboxRecord, bool]:
    """An event, and whether it waits in the spool: it may also be looked for there while the inbox is away."""
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
    _fail("There is no such event:", event_id)


def _why_not_requeued(record: InboxRecord, in_spool: bool) -> str:
    if in_spool:
        return "waits in the spool, and needs no requeueing"
    if record.status not in REQUEUABLE:
        return f"is {record.status}, and needs no requeueing"
    if record.scrubbed_at is not None:
        return "has no payload any more"
    return f"is {record.status}, and of the type {record.event.type}"


def _show(what: Table | dict[str, Any] | list[dict[str, Any]]) -> None:
    if isinstance(what, Table):
        # Where nobody looks, nothing is folded: what is looked for, as an id, has to be on one line.
        Console(width=None if sys.stdout.isatty() else UNFOLDED).print(what, highlight=False)
    else:
        print(json.dumps(what, indent=2))


def _say(what: str) -> None:
    Console().print(escape(printable(what)), highlight=False, soft_wrap=True)


def _say_what_is_paused(webhooks: Webhooks) -> None:
    _say(f"Paused: {', '.join(sorted(webhooks.paused)) or 'nothing'}.")


@contextmanager
def _failures_told() -> Iterator[None]:
    try:
        yield
    except (typer.Exit, typer.BadParameter):
        raise
    except Exception as error:
        _fail("It could not be done.", describe(error, longest=MAX_REASON))


def _fail(what: str, why: str) -> NoReturn:
    err.print(f"[red]{what}[/] {escape(redact(printable(why)))}", highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def _imported(place: str) -> Webhooks:
    module_name, _, name = place.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module_name), name or "webhooks")
    except (ImportError, ValueError, AttributeError) as error:
        raise ConfigurationError(f"there are no Webhooks at {place!r}: {describe(error)}") from error
    if not isinstance(found, Webhooks):
        raise ConfigurationError(f"{place!r} is no Webhooks but a {type(found).__name__}")
    return found


def migrate_by_url(
    inbox: Annotated[
        str, typer.Option(envvar="ENVOYOU_INBOX", help="The inbox's URL, such as postgresql+psycopg://host/database.")
    ],
) -> None:
    """Create the inbox's tables, or bring them up to this release. Running it again changes nothing."""
    try:
        _migrate(open_inbox(inbox))
    except Exception as error:
        _fail("The inbox could not be set up.", describe(error, longest=MAX_REASON))


err = Console(stderr=True)
app = application(
    Source(typer.Argument(help="Where your Webhooks are, such as hooks:webhooks."), _imported), migrate=migrate_by_url
)
