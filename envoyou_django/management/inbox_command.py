"""The base of the management commands that use the inbox."""

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
    """A command that uses the inbox. On an error it prints one line and exits with 1."""

    def handle(self, *args: Any, **options: Any) -> None:
        """Open the inbox and run the command.

        Raises:
            CommandError: the command failed.
        """
        try:
            webhooks.inbox.open()
            self.run(options)
        except (EnvoyouError, DatabaseError, InterfaceError) as error:
            raise CommandError(one_line(str(error))) from error

    def run(self, options: dict[str, Any]) -> None:
        """Run the command on the open inbox."""
        raise NotImplementedError

    def write_result(self, options: dict[str, Any], document: dict[str, Any], text: str) -> None:
        """Write the result: `document` as JSON with `--json`, else `text`."""
        self.stdout.write(json.dumps(document, indent=2) if options["json"] else text)


def add_json_argument(parser: ArgumentParser | CommandParser) -> None:
    """Declare `--json`."""
    parser.add_argument("--json", action="store_true", help="Write the result as JSON.")
