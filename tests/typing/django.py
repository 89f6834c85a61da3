"""What a type checker must make of a Django project. It is checked by mypy, and never run."""

from typing import assert_type

from django.test import TestCase

from envoyou_core import Event, Webhooks
from envoyou_core.testing import sample_event
from envoyou_django import webhooks
from envoyou_django.testing import WebhookClient, WebhookTestMixin

assert_type(webhooks, Webhooks)
assert_type(webhooks.drain(within=5), int)


@webhooks.on("user.created")
def welcome(event: Event) -> None: ...


class WebhookTests(WebhookTestMixin, TestCase):  # type: ignore[misc]
    webhook_url = "/webhooks/envoyou"
    raise_handler_errors = False

    def test_it(self) -> None:
        self.post_event("user.created", {"id": "user_1"}, webhook_id="wh_acme")
        self.send_event(sample_event(), secret="whsec_1")
        self.send_event("user.created")  # type: ignore[arg-type]

    async def test_it_in_a_loop(self) -> None:
        await self.apost_event("user.created")
        await self.asend_event(sample_event())


client = WebhookClient(url="/webhooks/envoyou", run_handlers=False)
client.post("user.created", {"id": "user_1"})
client.post(1)  # type: ignore[arg-type]
client.send(sample_event(), secret=1)  # type: ignore[arg-type]
