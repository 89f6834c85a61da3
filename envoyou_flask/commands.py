"""The commands of `flask envoyou`, which need the extra `cli`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Annotated

import typer
from flask import current_app

from envoyou_core import ConfigurationError, Webhooks
from envoyou_core.adapter import Target, application, run_commands

__all__ = ["run"]


def run(arguments: Sequence[str]) -> None:
    """Run a command for the current app, and end the process with its exit code."""
    run_commands(application(_group), arguments, name="flask envoyou")


def _group(
    context: typer.Context,
    name: Annotated[str, typer.Option("--name", help="The name of the blueprint, if the app has several.")] = "",
) -> None:
    """Operate EnvoyOU webhooks: run a worker, inspect and repair the inbox."""
    context.obj = Target(
        find=partial(_find, name),
        find_path=_find_path,
        server=f"http://127.0.0.1:{os.environ.get('FLASK_RUN_PORT', '5000')}",
    )


def _find(name: str) -> Webhooks:
    attached: dict[str, Webhooks] = current_app.extensions["envoyou"]
    if name in attached:
        return attached[name]
    only, *others = dict.fromkeys(attached.values())
    if name or others:
        raise ConfigurationError(f"--name must be one of: {', '.join(sorted(attached))}")
    return only


def _find_path() -> str:
    """Return the path of the URL that receives webhooks, if the app has exactly one."""
    paths = [
        rule.rule.rstrip("/")
        for rule in current_app.url_map.iter_rules()
        # Rules that only build URLs or redirect have no view.
        if getattr(current_app.view_functions.get(rule.endpoint), "__module__", None) == f"{__package__}.blueprint"
        and not rule.arguments
    ]
    if len(paths) != 1:
        raise ConfigurationError("the app has several URLs for webhooks, or only URLs with parameters: name the URL")
    return paths[0]
