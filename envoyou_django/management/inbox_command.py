"""What the commands that look after the inbox have in common."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, InterfaceError

from envoyou_core import EnvoyouError
from envoyou_core.adapter import one_line
from envoyou_django import webhooks

__all__ = ["InboxCommand", "add_json_argument"]


class InboxCommand(BaseCommand):
    """A command over the inbox: what goes wrong is said in a line, and the exit code is 1."""

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it.

        Raises:
            CommandError: it could not be done.
        """
        try:
            webhooks.inbox.open()
            self.look_after_inbox(options)
        except (EnvoyouError, DatabaseError, InterfaceError) as error:
            raise CommandError(f"It could not be done: {one_line(str(error))}") from error

    def look_after_inbox(self, options: dict[str, Any]) -> None:
        """What the command is for."""
        raise NotImplementedError

    def say(self, options: dict[str, Any], document: dict[str, Any], text: str) -> None:
        """Write the result: for a script where `--json` was given, else for people."""
        self.stdout.write(json.dumps(document, indent=2) if options["json"] else text)


def add_json_argument(parser: ArgumentParser | CommandParser) -> None:
    """Declare `--json`."""
    parser.add_argument("--json", action="store_true", help="Write the result for a script.")
