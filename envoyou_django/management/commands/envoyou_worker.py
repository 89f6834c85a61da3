"""`manage.py envoyou_worker`: a process of its own that works off the inbox."""

from __future__ import annotations

import logging
from argparse import ArgumentParser
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, InterfaceError, connections

from envoyou_core import ConfigurationError
from envoyou_core.adapter import one_line
from envoyou_core.errors import WorkerStuckError
from envoyou_django import webhooks
from envoyou_django.management.reloading import run_reloading

__all__ = ["Command"]

LEVELS = {0: logging.WARNING, 1: logging.INFO}


class Command(BaseCommand):
    """Runs the handlers of what is due until SIGTERM or SIGINT."""

    help = "Work off the inbox in a process of its own, until SIGTERM or SIGINT; a second signal ends it at once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--drain",
            action="store_true",
            help="Do what is due now, clear up, and end: for cron.",
        )
        parser.add_argument(
            "--reload", action="store_true", help="In development: begin anew whenever the code changes, as runserver."
        )
        parser.add_argument(
            "--shutdown-timeout",
            type=float,
            metavar="SECONDS",
            help="Seconds to finish what was begun, on SIGTERM; by default those of the setting.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Work until it is told to stop."""
        if options["drain"] and options["reload"]:
            raise CommandError("--drain ends by itself, and there is nothing to reload", returncode=2)
        self._show_log(options["verbosity"])
        timeout = options["shutdown_timeout"]
        if options["drain"]:
            self._drain()
        elif options["reload"]:
            run_reloading(partial(self._work, timeout), stop=partial(webhooks.stop, timeout))
        else:
            self._work(timeout)

    def _work(self, timeout: float | None) -> None:
        # The system checks may have opened some, in this thread, which asks for nothing from here on.
        connections.close_all()
        try:
            webhooks.run_worker(shutdown_timeout=timeout)
        except ConfigurationError as error:
            raise CommandError(f"The worker cannot start: {error}") from error
        except WorkerStuckError as error:
            raise CommandError(f"The worker has ended, to be started anew: {error}") from error

    def _drain(self) -> None:
        try:
            settled = webhooks.drain()
            webhooks.apply_retention()
        except (ConfigurationError, DatabaseError, InterfaceError) as error:
            raise CommandError(f"It could not be done: {one_line(str(error))}") from error
        self.stdout.write(f"Settled {settled} {'event' if settled == 1 else 'events'}.")

    def _show_log(self, verbosity: int) -> None:
        """Show what the worker says, where the project's LOGGING leaves that open."""
        log = logging.getLogger("envoyou")
        if log.hasHandlers():
            return
        handler = logging.StreamHandler(self.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        log.addHandler(handler)
        log.setLevel(LEVELS.get(verbosity, logging.DEBUG))
