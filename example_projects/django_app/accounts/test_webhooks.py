"""Signed deliveries go in by HTTP, `webhooks.drain()` has the handlers do their work."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.test import TestCase
from django.urls import reverse

from accounts.models import Login, User
from envoyou_core import Event
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_django import webhooks

ADA = {"id": "user_1", "email": "ada@example.com", "name": "Ada Lovelace", "email_verified": False}


class WebhookTests(TestCase):
    def deliver(self, event: Event, secret: str | None = None) -> Any:
        delivery = sign_delivery(event, secret=secret or settings.ENVOYOU["WEBHOOK_SECRET"])
        return self.client.post(
            "/webhooks/envoyou", delivery.body, content_type="application/json", headers=delivery.headers
        )

    def handle(self, *events: Event) -> None:
        for event in events:
            assert self.deliver(event).status_code == 200
        webhooks.drain()


class UserTests(WebhookTests):
    def test_a_user_is_kept_in_step(self) -> None:
        self.handle(
            sample_event("user.created", created=1, object=ADA),
            sample_event("user.updated", created=2, object={"id": "user_1", "email": "countess@example.com"}),
            sample_event("user.verified", created=3, object={"id": "user_1"}),
        )
        user = User.objects.get(envoyou_id="user_1")
        assert (user.first_name, user.last_name) == ("Ada", "Lovelace")
        assert (user.email, user.is_verified, user.is_active) == ("countess@example.com", True, True)
        assert not user.has_usable_password()

    def test_events_are_handled_in_the_order_in_which_they_happened(self) -> None:
        self.handle(
            sample_event("user.updated", created=2, object={"id": "user_1", "email": "new@example.com"}),
            sample_event("user.created", created=1, object={"id": "user_1", "email": "old@example.com"}),
        )
        assert User.objects.get(envoyou_id="user_1").email == "new@example.com"

    def test_a_late_update_does_not_bring_a_closed_account_back(self) -> None:
        self.handle(
            sample_event("user.created", created=1, object=ADA),
            sample_event("user.deleted", created=3, object={"id": "user_1"}),
        )
        self.handle(sample_event("user.updated", created=2, object=ADA))
        assert not User.objects.get(envoyou_id="user_1").is_active

    def test_a_forged_delivery_changes_nothing(self) -> None:
        assert self.deliver(sample_event(object=ADA), secret="guessed").status_code == 401
        assert webhooks.drain() == 0
        assert not User.objects.exists()


class LoginTests(WebhookTests):
    def test_a_login_is_noted_once(self) -> None:
        user = User.objects.create(username="ada", envoyou_id="user_1")
        event = sample_event("auth.login", object={"user_id": "user_1", "ip_address": "192.0.2.1"})
        assert self.deliver(event).json() == {"received": True}
        assert self.deliver(event).json() == {"received": True, "duplicate": True}
        assert webhooks.drain() == 1
        login = Login.objects.get()
        assert (login.user, login.ip_address, login.succeeded) == (user, "192.0.2.1", True)
        assert login.at == event.created_at

    def test_an_attempt_that_failed_is_told_from_a_login(self) -> None:
        User.objects.create(username="ada", envoyou_id="user_1")
        self.handle(sample_event("auth.failed", object={"user_id": "user_1"}))
        assert not Login.objects.get().succeeded

    def test_a_login_that_overtakes_its_user_is_tried_again(self) -> None:
        event = sample_event("auth.login", object={"user_id": "user_1"})
        self.handle(event)
        record = webhooks.inbox.get(event.id)
        assert record is not None
        assert (record.status, record.attempts) == ("failed", 1)


class AdminTests(WebhookTests):
    def test_the_audit_can_be_read_and_not_changed(self) -> None:
        self.client.force_login(User.objects.create_superuser("admin"))
        self.handle(sample_event("user.created", object=ADA))
        self.handle(sample_event("auth.login", object={"user_id": "user_1", "ip_address": "192.0.2.1"}))
        self.assertContains(self.client.get(reverse("admin:accounts_login_changelist")), "192.0.2.1")
        assert self.client.get(reverse("admin:accounts_login_add")).status_code == 403
        page = self.client.get(reverse("admin:accounts_user_change", args=[User.objects.get(envoyou_id="user_1").pk]))
        self.assertContains(page, "user_1")
