"""`manage.py envoyou`: the commands of `envoyou` for the project's webhooks."""

from __future__ import annotations

import logging
import os
from argparse import REMAINDER
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import router
from django.urls import NoReverseMatch

from envoyou_core import ConfigurationError
from envoyou_django.endpoints import endpoints
from envoyou_django.management.reloading import run_with_reload
from envoyou_django.models import ProcessedEvent
from envoyou_django.project import project_webhooks

if TYPE_CHECKING:
    from envoyou_core.adapter import Check, Target

__all__ = ["Command"]

NAME: Final = "manage.py envoyou"
LEVELS: Final = {0: logging.WARNING, 1: logging.INFO}

COLOR_VARIABLES: Final = {"no_color": "NO_COLOR", "force_color": "FORCE_COLOR"}

WITH_VALUE: Final = ("-v", "--verbosity", "--settings", "--pythonpath")
FLAGS: Final = ("--traceback", "--no-color", "--force-color", "--skip-checks")
"""Django's own options, which every command takes at any place."""


class Command(BaseCommand):
    """Passes its arguments on to the command line of the core."""

    help = "Operate EnvoyOU webhooks: run a worker, inspect and repair the inbox."
    _is_called_from_code = True

    def run_from_argv(self, argv: Sequence[str]) -> None:
        """Run the command. Django's own options may stand before and behind the others."""
        self._is_called_from_code = False
        own, others = _divide(argv[2:])
        if others[:1] == ["doctor"] and "--skip-checks" not in own:
            # It runs the checks itself, and reports them among its findings.
            own.append("--skip-checks")
        super().run_from_argv([*argv[:2], *own, "--", *others])

    def print_help(self, prog_name: str, subcommand: str) -> None:
        """Print the help of the command line, as `manage.py help envoyou` does."""
        self.run_from_argv([prog_name, subcommand, "--help"])

    def add_arguments(self, parser: CommandParser) -> None:
        """Take all arguments that are not Django's."""
        parser.add_argument("args", nargs=REMAINDER, metavar="COMMAND", help="See `manage.py envoyou --help`.")

    def handle(self, *arguments: str, **options: Any) -> None:
        """Run a command of the command line.

        Raises:
            SystemExit: with the exit code of the command, if it is run from the command line.
            CommandError: it has failed, if it is called by `call_command`; or the extra is not installed.
        """
        try:
            from envoyou_core.adapter import application, run_commands
        except ImportError as error:
            raise CommandError(f"{error.name} is not installed: pip install 'envoyou-webhooks[django]'") from error
        for option, variable in COLOR_VARIABLES.items():
            if options[option] and not self._is_called_from_code:
                os.environ[variable] = "1"
        given = list(arguments[1:] if arguments[:1] == ("--",) else arguments)
        stdout = options.get("stdout")
        try:
            with nullcontext() if stdout is None else redirect_stdout(stdout):
                run_commands(application(), given, name=NAME, target=_target(options))
        except SystemExit as end:
            if not self._is_called_from_code:
                raise
            if end.code:
                raise CommandError(f"{NAME} {' '.join(given[:2])} has failed", returncode=int(end.code)) from None


def _divide(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return Django's own options, and the other arguments."""
    own: list[str] = []
    others: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            others += [argument, *rest]
        elif argument in FLAGS or argument.startswith(tuple(f"{option}=" for option in WITH_VALUE)):
            own.append(argument)
        elif argument in WITH_VALUE:
            own += [argument, *[value for value in [next(rest, None)] if value is not None]]
        else:
            others.append(argument)
    return own, others


def _target(options: dict[str, Any]) -> Target:
    from envoyou_core.adapter import Target

    return Target(
        find=project_webhooks.setup,
        find_path=_find_path,
        migrate=_migrate,
        checks=_checks(),
        reload=lambda work, stop: run_with_reload(work, stop=stop),
        set_up_logging=partial(_set_up_logging, options["verbosity"]),
        show_traceback=options["traceback"],
    )


def _checks() -> tuple[Check, ...]:
    from envoyou_django.doctor import check_migrations, check_project

    return (check_migrations, check_project)


def _find_path() -> str:
    for endpoint in endpoints():
        try:
            return endpoint.path
        except NoReverseMatch:
            continue
    raise ConfigurationError("the project has no URL for webhooks, or only URLs with parameters: name the URL")


def _migrate() -> None:
    """Run Django's `migrate` for the inbox's tables, in the database that holds them."""
    call_command("migrate", "envoyou_django", database=router.db_for_write(ProcessedEvent))


def _set_up_logging(verbosity: int) -> None:
    """Log to stderr, unless the project's LOGGING configures the logger `envoyou`."""
    log = logging.getLogger("envoyou")
    if log.hasHandlers():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    log.addHandler(handler)
    log.setLevel(LEVELS.get(verbosity, logging.DEBUG))
