"""The command line: the same commands for `envoyou`, `flask envoyou` and `manage.py envoyou`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from typing import Annotated, Final

import typer

from envoyou_core.cli.alerts import alerts
from envoyou_core.cli.applications import load
from envoyou_core.cli.developing import dev
from envoyou_core.cli.doctor import doctor
from envoyou_core.cli.events import events
from envoyou_core.cli.health import health
from envoyou_core.cli.output import ignore_closed_pipe, print_text, report_errors
from envoyou_core.cli.processing import handlers, pause, resume, worker, workers
from envoyou_core.cli.proving import prove
from envoyou_core.cli.rejected import rejected
from envoyou_core.cli.signing_secrets import secret
from envoyou_core.cli.simulating import simulate
from envoyou_core.cli.storage import migrate, prune, stats
from envoyou_core.cli.sync import sync
from envoyou_core.cli.target import Target
from envoyou_core.cli.trigger import trigger
from envoyou_core.cli.verify import verify
from envoyou_core.cli.webhooks import webhooks
from envoyou_core.references import find_reference

__all__ = ["app", "application", "run_commands"]

EPILOG: Final = (
    "Exit codes: 0 done; 1 failed, or a check was not met; 2 wrong usage; 3 what is registered differs from the file "
    "of webhooks sync; 130 ended by Ctrl-C; 141 the reader of the output has gone. Data is printed to standard output, "
    "all else to standard error. NO_COLOR turns colours off."
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print_text(f"envoyou-webhooks {metadata.version('envoyou-webhooks')}")
        raise typer.Exit


VERSION = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
]


def envoyou(version: VERSION = False) -> None:
    """Operate EnvoyOU webhooks: run a worker, inspect and repair the inbox."""


def _standalone(
    context: typer.Context,
    app: Annotated[
        str | None,
        typer.Option(
            "--app",
            metavar="MODULE:NAME",
            help="Your Webhooks object, such as hooks:webhooks, or your Flask app. By default ENVOYOU_APP, else "
            "tool.envoyou.app in pyproject.toml. NAME is webhooks if it is left out.",
            show_default=False,
        ),
    ] = None,
    version: VERSION = False,
) -> None:
    """Operate EnvoyOU webhooks: run a worker, inspect and repair the inbox."""
    with report_errors():
        reference = find_reference(app)
    context.obj = Target(find=partial(load, reference), is_named=reference is not None)


def application(group: Callable[..., None] = envoyou, *, has_completion: bool = False) -> typer.Typer:
    """Return the command line.

    Args:
        group: the function of the group. It may have options, and sets `context.obj` to the `Target` of the commands,
            unless `run_commands` gets it.
        has_completion: whether it installs the completion of a shell.
    """
    commands = typer.Typer(
        no_args_is_help=True,
        add_completion=has_completion,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    commands.callback(epilog=EPILOG)(group)
    commands.command()(stats)
    commands.add_typer(events, name="events")
    commands.add_typer(rejected, name="rejected")
    commands.add_typer(alerts, name="alerts")
    for command in (handlers, workers, pause, resume, prune, worker, health, migrate):
        commands.command()(command)
    for command in (trigger, verify, doctor, dev, prove):
        commands.command()(command)
    commands.add_typer(secret, name="secret")
    commands.add_typer(webhooks, name="webhooks")
    return commands


def run_commands(
    commands: typer.Typer,
    arguments: Sequence[str] | None = None,
    *,
    name: str | None = None,
    target: Target | None = None,
) -> None:
    """Run a command line, and end the process with its exit code.

    Args:
        commands: what `application` has returned.
        arguments: by default those of the process.
        name: how the command is called, for its help.
        target: the application, unless the group finds it.
    """
    with ignore_closed_pipe():
        commands(None if arguments is None else list(arguments), prog_name=name, obj=target)


webhooks.command()(sync)
app = application(_standalone, has_completion=True)
app.command()(simulate)
