"""What `envoyou` can do."""

from __future__ import annotations

import importlib
import logging
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from envoyou_core.errors import ConfigurationError, WorkerStuckError, describe
from envoyou_core.webhooks import Webhooks

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
err = Console(stderr=True)

Place = Annotated[str, typer.Argument(help="Where your Webhooks are, such as hooks:webhooks.")]


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
    webhooks: Place,
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


PausedType = Annotated[str | None, typer.Option("--type", help="Events of a type: user.created, user.* or *.")]
PausedHandler = Annotated[str | None, typer.Option("--handler", help="Events that the handler of this name handles.")]


@app.command()
def pause(webhooks: Place, type: PausedType = None, handler: PausedHandler = None) -> None:
    """Hold back events in all processes, until resumed. They are accepted as ever, and wait."""
    _change_pauses(webhooks, "pause", type, handler)


@app.command()
def resume(webhooks: Place, type: PausedType = None, handler: PausedHandler = None) -> None:
    """Go on with what was paused."""
    _change_pauses(webhooks, "resume", type, handler)


def _change_pauses(place: str, change: Literal["pause", "resume"], type: str | None, handler: str | None) -> None:
    try:
        webhooks = _find(place)
        with closing(webhooks.inbox):
            (webhooks.pause if change == "pause" else webhooks.resume)(type=type, handler=handler)
            paused = sorted(webhooks.paused)
    except (ConfigurationError, ValueError) as error:
        err.print(f"[red]Nothing was changed.[/] {error}", highlight=False)
        raise typer.Exit(1) from None
    Console().print("Paused: " + (", ".join(paused) or "nothing"), highlight=False)


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
