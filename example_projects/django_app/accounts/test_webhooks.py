"""Tests that send signed deliveries over HTTP; the handlers have run when the response arrives."""

from __future__ import annotations

from django.test import TestCase
from django.urls import reverse

from accounts.models import Login, User
from envoyou_core.testing import sample_event
from envoyou_django import webhooks
from envoyou_django.testing import WebhookTestMixin

ADA = {"id": "user_1", "email": "ada@example.com", "name": "Ada Lovelace", "email_verified": False}


class UserTests(WebhookTestMixin, TestCase):
    def test_a_user_is_kept_in_step(self) -> None:
        self.post_event("user.created", ADA)
        self.post_event("user.updated", {"id": "user_1", "email": "countess@example.com"})
        self.post_event("user.verified", {"id": "user_1"})
        user = User.objects.get(envoyou_id="user_1")
        assert (user.first_name, user.last_name) == ("Ada", "Lovelace")
        assert (user.email, user.is_verified, user.is_active) == ("countess@example.com", True, True)
        assert not user.has_usable_password()

    def test_a_late_update_does_not_bring_a_closed_account_back(self) -> None:
        self.post_event("user.created", ADA, created=1)
        self.post_event("user.deleted", {"id": "user_1"}, created=3)
        self.post_event("user.updated", {**ADA, "email": "late@example.com"}, created=2)
        user = User.objects.get(envoyou_id="user_1")
        assert (user.email, user.is_active) == ("ada@example.com", False)

    def test_a_forged_delivery_changes_nothing(self) -> None:
        response = self.send_event(sample_event("user.created", object=ADA), secret="guessed")
        assert response.status_code == 401
        assert not User.objects.exists()


class OrderTests(WebhookTestMixin, TestCase):
    run_handlers = False

    def test_events_are_handled_in_the_order_in_which_they_happened(self) -> None:
        self.post_event("user.updated", {"id": "user_1", "email": "new@example.com"}, created=2)
        self.post_event("user.created", {"id": "user_1", "email": "old@example.com"}, created=1)
        webhooks.drain(raise_errors=True)
        assert User.objects.get(envoyou_id="user_1").email == "new@example.com"


class LoginTests(WebhookTestMixin, TestCase):
    def test_a_login_is_noted_once(self) -> None:
        user = User.objects.create(username="ada", envoyou_id="user_1")
        event = sample_event("auth.login", object={"user_id": "user_1", "ip_address": "192.0.2.1"})
        assert self.send_event(event).json() == {"received": True}
        assert self.send_event(event).json() == {"received": True, "duplicate": True}
        login = Login.objects.get()
        assert (login.user, login.ip_address, login.succeeded) == (user, "192.0.2.1", True)
        assert login.at == event.created_at

    def test_an_attempt_that_failed_is_told_from_a_login(self) -> None:
        User.objects.create(username="ada", envoyou_id="user_1")
        self.post_event("auth.failed", {"user_id": "user_1"})
        assert not Login.objects.get().succeeded


class OvertakingTests(WebhookTestMixin, TestCase):
    raise_handler_errors = False

    def test_a_login_that_overtakes_its_user_is_tried_again(self) -> None:
        event = self.post_event("auth.login", {"user_id": "user_1"}).event
        record = webhooks.inbox.get(event.id)
        assert record is not None
        assert (record.status, record.attempts) == ("failed", 1)


class AdminTests(WebhookTestMixin, TestCase):
    def test_the_audit_can_be_read_and_not_changed(self) -> None:
        self.client.force_login(User.objects.create_superuser("admin"))
        self.post_event("user.created", ADA)
        self.post_event("auth.login", {"user_id": "user_1", "ip_address": "192.0.2.1"})
        self.assertContains(self.client.get(reverse("admin:accounts_login_changelist")), "192.0.2.1")
        assert self.client.get(reverse("admin:accounts_login_add")).status_code == 403
        page = self.client.get(reverse("admin:accounts_user_change", args=[User.objects.get(envoyou_id="user_1").pk]))
        self.assertContains(page, "user_1")
