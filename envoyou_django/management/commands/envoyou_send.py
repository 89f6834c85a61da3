"""`manage.py envoyou_send`: a sample event, signed as EnvoyOU signs it, to this project's own URL."""

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
    """Sends one sample."""

    help = (
        "Send a sample event, signed with the project's secret, and show the answer. It ends with 1 unless that is 200."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--type", default="user.created", help="The event's type; user.created by default.")
        parser.add_argument("--data", help="Its data.object, as JSON; '-' reads it from the standard input.")
        parser.add_argument("--server", default=SERVER, help=f"Where the project is served; {SERVER} by default.")
        parser.add_argument("--url", help="The whole address, in place of the one that the project's URLs lead to.")
        parser.add_argument(
            "--webhook-id", default=SAMPLE_WEBHOOK_ID, help="The endpoint's id, where secrets go by it."
        )
        add_json_argument(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Send it."""
        url = options["url"] or urljoin(options["server"], _path())
        webhook_id = options["webhook_id"]
        try:
            event_id, status, answer = send_sample(
                url,
                type=options["type"],
                secret=conf.signing_secret(webhook_id),
                object=_object(options["data"]),
                webhook_id=webhook_id,
            )
        except EnvoyouError as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"Nobody answered at {url}: {error}. Is the project being served there?") from error
        if options["json"]:
            self.stdout.write(json.dumps({"id": event_id, "url": url, "status": status, "answer": answer}, indent=2))
        else:
            self.stdout.write(f"{event_id} to {url}: {status} {answer}")
        if status != 200:
            raise CommandError("It was not accepted.")


def _path() -> str:
    for endpoint in endpoints():
        try:
            return endpoint.path
        except NoReverseMatch:
            continue
    raise CommandError("No URL of this project receives webhooks, or none without something to fill in: give --url.")


def _object(data: str | None) -> dict[str, Any] | None:
    if data is None:
        return None
    try:
        found = json.loads(sys.stdin.read() if data == "-" else data)
    except ValueError as error:
        raise CommandError(f"--data is no JSON: {error}", returncode=2) from error
    if not isinstance(found, dict):
        raise CommandError("--data is a JSON object", returncode=2)
    return found
