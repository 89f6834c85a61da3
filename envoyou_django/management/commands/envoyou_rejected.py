"""`manage.py envoyou_rejected`: list, show and retry genuine deliveries that were answered 400."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from envoyou_core import WebhookError
from envoyou_core.adapter import one_line, rejected_as_json
from envoyou_core.inbox import RejectedDelivery
from envoyou_django import webhooks
from envoyou_django.management.inbox_command import InboxCommand, add_json_argument

__all__ = ["Command"]


class Command(InboxCommand):
    """Lists, shows and retries rejected deliveries. Payloads are not shown."""

    help = "List, show and retry genuine deliveries that were answered 400 and are kept. Payloads are not shown."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the subcommands."""
        actions = parser.add_subparsers(dest="action", required=True)
        listing = actions.add_parser("list", help="List deliveries, newest first.")
        listing.add_argument("--limit", type=int, default=20, help="The maximum number of deliveries.")
        add_json_argument(listing)
        showing = actions.add_parser("show", help="Show one delivery.")
        showing.add_argument("key", type=int, help="The key of the delivery, as `list` shows it.")
        add_json_argument(showing)
        retrying = actions.add_parser(
            "retry", help="Verify deliveries anew, as of the time at which they came, and accept those that pass."
        )
        retrying.add_argument("keys", type=int, nargs="+", metavar="key", help="The keys of deliveries.")
        retrying.add_argument(
            "--signed-headers",
            action="store_true",
            help="Use the event type and the webhook id of the signed body instead of those of the headers.",
        )

    def run(self, options: dict[str, Any]) -> None:
        """Run the subcommand."""
        match options["action"]:
            case "list":
                self._list(options)
            case "show":
                self._show(options)
            case "retry":
                self._retry(options)

    def _list(self, options: dict[str, Any]) -> None:
        deliveries = webhooks.inbox.list_rejected(limit=max(0, options["limit"]))
        if options["json"]:
            self.stdout.write(json.dumps([rejected_as_json(delivery) for delivery in deliveries], indent=2))
            return
        for delivery in deliveries:
            self.stdout.write(_line(delivery))

    def _show(self, options: dict[str, Any]) -> None:
        delivery = webhooks.inbox.get_rejected(options["key"])
        if delivery is None:
            raise CommandError(f"No such rejected delivery: {options['key']}")
        document = rejected_as_json(delivery)
        lines = (f"{name:<12}{one_line(str(value))}" for name, value in document.items() if value is not None)
        self.write_result(options, document, "\n".join(lines))

    def _retry(self, options: dict[str, Any]) -> None:
        failed = [key for key in options["keys"] if not self._is_accepted(key, options["signed_headers"])]
        if failed:
            raise CommandError(f"Still rejected, or not found: {', '.join(map(str, failed))}")

    def _is_accepted(self, key: int, use_signed_headers: bool) -> bool:
        try:
            event = webhooks.retry_rejected(key, use_signed_headers=use_signed_headers)
        except WebhookError as error:
            self.stdout.write(f"{key}: {one_line(str(error))}")
            return False
        self.stdout.write(f"{key}: not found" if event is None else f"{key}: accepted {event.id} ({event.type})")
        return event is not None


def _line(delivery: RejectedDelivery) -> str:
    received_at = f"{delivery.received_at:%Y-%m-%d %H:%M:%S}"
    return f"{delivery.key:>8}  {received_at} UTC  {delivery.size:>9}  {delivery.reason}  {one_line(delivery.error)}"
