"""`flask envoyou`: the commands of `envoyou` for the current app's webhooks."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, Final

import click
from flask import Flask, current_app
from flask.cli import with_appcontext

from envoyou_core import ConfigurationError, Webhooks
from envoyou_core.adapter import SECRET_NAMES, Secret, newest_secret, read_settings

__all__ = ["add_commands"]

PREFIX: Final = "ENVOYOU_"
"""The prefix of the settings in `app.config`."""


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
        import typer

        from envoyou_core.adapter import Source, application
    except ImportError as error:
        raise click.ClickException(f"{error.name} is not installed: pip install 'envoyou-webhooks[cli]'") from error
    name = typer.Option("--name", help="The name of the blueprint, if the app has several.")
    commands = application(Source(name, _find, default=""))
    commands(
        list(arguments),
        prog_name="flask envoyou",
        default_map={"send": _send_defaults(current_app)},
        obj=partial(_newest_secret, current_app),
    )


def _find(name: str) -> Webhooks:
    attached: dict[str, Webhooks] = current_app.extensions["envoyou"]
    if name in attached:
        return attached[name]
    only, *others = dict.fromkeys(attached.values())
    if name or others:
        raise ConfigurationError(f"--name must be one of: {', '.join(sorted(attached))}")
    return only


def _send_defaults(app: Flask) -> dict[str, Any]:
    """Return the defaults of the command `send`: the URL that receives webhooks, if the app has exactly one."""
    defaults: dict[str, Any] = {}
    paths = [
        rule.rule.rstrip("/")
        for rule in app.url_map.iter_rules()
        # Rules that only build URLs or redirect have no view.
        if getattr(app.view_functions.get(rule.endpoint), "__module__", None) == f"{__package__}.blueprint"
        and not rule.arguments
    ]
    if len(paths) == 1:
        defaults["url"] = f"http://127.0.0.1:{os.environ.get('FLASK_RUN_PORT', '5000')}{paths[0]}"
    return defaults


def _newest_secret(app: Flask, webhook_id: str) -> Secret:
    """Return the newest secret from the app's settings, or from the environment if the settings have none."""
    from envoyou_core.adapter import secret_from_environment

    settings = app.config.get_namespace(PREFIX, lowercase=False)
    secret = read_settings({name: settings.get(name) for name in SECRET_NAMES}, prefix=PREFIX).get("secret")
    return secret_from_environment(webhook_id) if secret is None else newest_secret(secret, webhook_id)
