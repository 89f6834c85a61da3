"""Signed deliveries go in by HTTP, `webhooks.drain()` has the handlers do their work."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.test import TestCase

from envoyou_core import Event
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_django import webhooks


class WebhookTests(TestCase):
    def deliver(self, event: Event, secret: str | None = None) -> Any:
        delivery = sign_delivery(event, secret=secret or settings.ENVOYOU["WEBHOOK_SECRET"])
        return self.client.post(
            "/webhooks/envoyou", delivery.body, content_type="application/json", headers=delivery.headers
        )

    def test_an_account_is_kept_in_step(self) -> None:
        self.deliver(sample_event("user.created", object={"id": "user_1", "email": "old@example.com"}))
        self.deliver(sample_event("user.updated", object={"id": "user_1", "email": "new@example.com"}))
        assert webhooks.drain() == 2
        assert User.objects.get(username="user_1").email == "new@example.com"

    def test_an_account_is_closed(self) -> None:
        User.objects.create(username="user_1")
        self.deliver(sample_event("user.deleted", object={"id": "user_1"}))
        webhooks.drain()
        assert not User.objects.get(username="user_1").is_active

    def test_a_login_is_noted_once(self) -> None:
        User.objects.create(username="user_1")
        event = sample_event("auth.login", object={"user_id": "user_1"})
        assert self.deliver(event).json() == {"received": True}
        assert self.deliver(event).json() == {"received": True, "duplicate": True}
        assert webhooks.drain() == 1
        assert User.objects.get(username="user_1").last_login == event.created_at

    def test_a_login_of_someone_unknown_is_tried_again(self) -> None:
        event = sample_event("auth.login", object={"user_id": "user_1"})
        self.deliver(event)
        webhooks.drain()
        record = webhooks.inbox.get(event.id)
        assert record is not None
        assert (record.status, record.attempts) == ("failed", 1)

    def test_a_forged_delivery_changes_nothing(self) -> None:
        response = self.deliver(sample_event(object={"id": "user_1", "email": "x@example.com"}), secret="guessed")
        assert response.status_code == 401
        assert webhooks.drain() == 0
        assert not User.objects.exists()
