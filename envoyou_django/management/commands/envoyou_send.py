"""`manage.py envoyou_send`: send a signed sample event to this project's own URL."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from typing import Any
from urllib.parse import urljoin

from django.core.management.base import BaseCommand, CommandError
from django.urls import NoReverseMatch

from envoyou_core import EnvoyouError
from envoyou_core.adapter import send_sample
from envoyou_core.testing import SAMPLE_WEBHOOK_ID
from envoyou_django import conf
from envoyou_django.endpoints import endpoints
from envoyou_django.management.inbox_command import add_json_argument

__all__ = ["Command"]

SERVER = "http://127.0.0.1:8000"


class Command(BaseCommand):
    """Sends one sample event."""

    help = (
        "Send a sample event, signed with the project's secret, and show the response. The exit code is 1 unless its "
        "status is 200."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--type", default="user.created", help="The event's type; the default is user.created.")
        parser.add_argument("--data", help="Its data.object as a JSON object; '-' reads it from standard input.")
        parser.add_argument("--server", default=SERVER, help=f"The server's base URL; the default is {SERVER}.")
        parser.add_argument(
            "--url", help="The full URL; the default is --server with the path of the project's endpoint."
        )
        parser.add_argument(
            "--webhook-id", default=SAMPLE_WEBHOOK_ID, help="The endpoint's id, if the secret depends on it."
        )
        add_json_argument(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Send the event and show the response."""
        url = options["url"] or urljoin(options["server"], _path())
        webhook_id = options["webhook_id"]
        try:
            event_id, status, response = send_sample(
                url,
                type=options["type"],
                secret=conf.signing_secret(webhook_id),
                object=_object(options["data"]),
                webhook_id=webhook_id,
            )
        except EnvoyouError as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"No response from {url}: {error}. Is the server running?") from error
        if options["json"]:
            self.stdout.write(json.dumps({"id": event_id, "url": url, "status": status, "answer": response}, indent=2))
        else:
            self.stdout.write(f"{event_id} to {url}: {status} {response}")
        if status != 200:
            raise CommandError("The event was not accepted.")


def _path() -> str:
    for endpoint in endpoints():
        try:
            return endpoint.path
        except NoReverseMatch:
            continue
    raise CommandError("The project has no URL for webhooks, or only URLs with parameters: give --url.")


def _object(data: str | None) -> dict[str, Any] | None:
    if data is None:
        return None
    try:
        value = json.loads(sys.stdin.read() if data == "-" else data)
    except ValueError as error:
        raise CommandError(f"--data must be JSON: {error}", returncode=2) from error
    if not isinstance(value, dict):
        raise CommandError(f"--data must be a JSON object, got {type(value).__name__}", returncode=2)
    return value
