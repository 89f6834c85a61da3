"""`flask envoyou`: the commands of `envoyou` for the current app's webhooks."""

from __future__ import annotations

import click
from flask import Flask
from flask.cli import with_appcontext

__all__ = ["add_commands"]


def add_commands(app: Flask) -> None:
    """Add `flask envoyou` to the app's commands."""
    app.cli.add_command(_envoyou)


# The commands are Typer's, which bundles its own Click. So a Click command of Flask passes its arguments on to them.
@click.command(
    "envoyou",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@with_appcontext
def _envoyou(arguments: tuple[str, ...]) -> None:
    """EnvoyOU webhooks: the worker, and the inbox."""
    try:
        from envoyou_flask.commands import run
    except ImportError as error:
        raise click.ClickException(f"{error.name} is not installed: pip install 'envoyou-webhooks[cli]'") from error
    run(arguments)
