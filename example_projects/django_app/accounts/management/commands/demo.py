"""`manage.py demo`: set up the project with sample events and run the server."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandError, call_command

from accounts.models import User
from envoyou_core import WebhookRequest
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_django import webhooks

NAME = "demo"


class Command(BaseCommand):
    help = "Makes the tables, someone who may sign in to the admin, and a few events; then runs the server."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("addrport", nargs="?", default="127.0.0.1:8000")

    def handle(self, *, addrport: str, **_: Any) -> None:
        if not settings.DEBUG:
            raise CommandError("the demonstration has a password that everybody knows: it is for development only")
        call_command("migrate", verbosity=0)
        if not User.objects.filter(username=NAME).exists():
            User.objects.create_superuser(NAME, password=NAME)
            for type in ("user.created", "user.verified", "auth.login", "auth.failed", "system.incident"):
                deliver(type)
            # The worker of the server would start with the first request only.
            webhooks.drain(until_idle=True)
        self.stdout.write(f"Sign in at http://{addrport}/admin/ as {NAME!r}, with the same password.")
        call_command("runserver", addrport, use_reloader=False)


def deliver(type: str) -> None:
    """Receive one event as the server would."""
    delivery = sign_delivery(sample_event(type), secret=settings.ENVOYOU["WEBHOOK_SECRET"])
    webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
