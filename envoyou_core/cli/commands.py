"""What `envoyou` can do."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from envoyou_core.errors import ConfigurationError, WorkerStuckError, describe
from envoyou_core.webhooks import Webhooks

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
err = Console(stderr=True)

WEBHOOKS = Annotated[str, typer.Argument(help="Where your Webhooks are, such as hooks:webhooks.")]
PAUSED_TYPE = Annotated[
    str | None, typer.Option("--type", help="An event type, such as user.created, 'user.*' or '*'.")
]
PAUSED_HANDLER = Annotated[str | None, typer.Option("--handler", help="A handler's name, in place of a type.")]


@app.callback()
def envoyou() -> None:
    """EnvoyOU webhooks: a durable inbox, and the work behind it."""


@app.command()
def migrate(
    inbox: Annotated[
        str, typer.Option(envvar="ENVOYOU_INBOX", help="The inbox's URL, such as postgresql+psycopg://host/database.")
    ],
) -> None:
    """Create the inbox's tables, or bring them up to this release. Running it again changes nothing."""
    from sqlalchemy.exc import SQLAlchemyError

    from envoyou_core.inbox.sql import SqlInbox
    from envoyou_core.inbox.upgrades import REVISION

    try:
        with closing(SqlInbox(inbox)) as database:
            database.migrate()
    except (ConfigurationError, SQLAlchemyError) as error:
        err.print(f"[red]The inbox could not be set up.[/] {describe(error)}", highlight=False)
        raise typer.Exit(1) from None
    Console().print(f"[green]The inbox is ready[/] (schema {REVISION}).", highlight=False)


@app.command()
def worker(
    webhooks: WEBHOOKS,
    shutdown_timeout: Annotated[
        float | None, typer.Option(help="Seconds to finish what was begun, on SIGTERM; else those of the setting.")
    ] = None,
) -> None:
    """Work off the inbox in a process of its own, until SIGTERM or SIGINT; a second signal ends it at once."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        _find(webhooks).run_worker(shutdown_timeout=shutdown_timeout)
    except ConfigurationError as error:
        err.print(f"[red]The worker cannot start.[/] {error}", highlight=False)
        raise typer.Exit(1) from None
    except WorkerStuckError as error:
        err.print(f"[red]The worker has ended, to be started anew.[/] {error}", highlight=False)
        raise typer.Exit(1) from None


@app.command()
def pause(webhooks: WEBHOOKS, type: PAUSED_TYPE = None, handler: PAUSED_HANDLER = None) -> None:
    """Leave events of a type, or all that a handler handles, in the inbox: in all processes, until they are resumed."""
    _change_what_is_paused(webhooks, lambda found: found.pause(type=type, handler=handler))


@app.command()
def resume(webhooks: WEBHOOKS, type: PAUSED_TYPE = None, handler: PAUSED_HANDLER = None) -> None:
    """Undo a pause that named the same."""
    _change_what_is_paused(webhooks, lambda found: found.resume(type=type, handler=handler))


def _change_what_is_paused(place: str, change: Callable[[Webhooks], None]) -> None:
    try:
        webhooks = _find(place)
        change(webhooks)
        paused = ", ".join(sorted(webhooks.paused)) or "nothing"
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    except Exception as error:
        err.print(f"[red]It could not be changed.[/] {escape(describe(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    Console().print(f"Paused: {escape(paused)}.", highlight=False)


def _find(place: str) -> Webhooks:
    module_name, _, name = place.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module_name), name or "webhooks")
    except (ImportError, ValueError, AttributeError) as error:
        raise ConfigurationError(f"there are no Webhooks at {place!r}: {describe(error)}") from error
    if not isinstance(found, Webhooks):
        raise ConfigurationError(f"{place!r} is no Webhooks but a {type(found).__name__}")
    return found
