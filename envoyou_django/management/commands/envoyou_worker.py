"""`manage.py envoyou_worker`: run a worker in its own process."""

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
from envoyou_django.management.reloading import run_with_reload

__all__ = ["Command"]

LEVELS = {0: logging.WARNING, 1: logging.INFO}


class Command(BaseCommand):
    """Handles due events until SIGTERM or SIGINT."""

    help = "Run a worker in its own process until SIGTERM or SIGINT; a second signal ends it at once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--drain",
            action="store_true",
            help="Handle what is due now, apply the retention settings, and exit: for cron.",
        )
        parser.add_argument(
            "--reload", action="store_true", help="For development: restart when the code changes, as runserver does."
        )
        parser.add_argument(
            "--shutdown-timeout",
            type=float,
            metavar="SECONDS",
            help="Seconds to finish running attempts on SIGTERM; the default is the setting SHUTDOWN_TIMEOUT.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the worker until it is stopped, or drain the inbox.

        Raises:
            CommandError: the options contradict each other, the worker cannot start or is stuck, or the drain failed.
        """
        if options["drain"] and options["reload"]:
            raise CommandError("--drain and --reload exclude each other", returncode=2)
        self._configure_log(options["verbosity"])
        timeout = options["shutdown_timeout"]
        if options["drain"]:
            self._drain()
        elif options["reload"]:
            run_with_reload(partial(self._work, timeout), stop=partial(webhooks.stop, timeout))
        else:
            self._work(timeout)

    def _work(self, timeout: float | None) -> None:
        # The system checks may have opened connections in this thread, which uses none from here on.
        connections.close_all()
        try:
            webhooks.run_worker(shutdown_timeout=timeout)
        except ConfigurationError as error:
            raise CommandError(f"The worker cannot start: {error}") from error
        except WorkerStuckError as error:
            raise CommandError(f"The worker ended and must be restarted: {error}") from error

    def _drain(self) -> None:
        try:
            settled = webhooks.drain()
            webhooks.apply_retention()
        except (ConfigurationError, DatabaseError, InterfaceError) as error:
            raise CommandError(one_line(str(error))) from error
        self.stdout.write(f"Settled {settled} {'event' if settled == 1 else 'events'}.")

    def _configure_log(self, verbosity: int) -> None:
        """Log to stderr, unless the project's LOGGING configures the logger `envoyou`."""
        log = logging.getLogger("envoyou")
        if log.hasHandlers():
            return
        handler = logging.StreamHandler(self.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        log.addHandler(handler)
        log.setLevel(LEVELS.get(verbosity, logging.DEBUG))
