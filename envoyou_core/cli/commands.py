"""What `envoyou` can do."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer
from rich.console import Console

from envoyou_core.errors import ConfigurationError, describe

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
err = Console(stderr=True)


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

    from envoyou_core.inbox.schema import SCHEMA_VERSION
    from envoyou_core.inbox.sql import SqlInbox

    try:
        with closing(SqlInbox(inbox)) as database:
            database.migrate()
    except (ConfigurationError, SQLAlchemyError) as error:
        err.print(f"[red]The inbox could not be set up.[/] {describe(error)}", highlight=False)
        raise typer.Exit(1) from None
    Console().print(f"[green]The inbox is ready[/] (schema {SCHEMA_VERSION}).", highlight=False)
