"""Alerts and counts in Django: by e-mail to the project's administrators, and what a process may store."""

from datetime import timedelta

import django
import pytest
from django.core import mail
from django.test import override_settings

from envoyou_core import ConfigurationError, WebhookRequest
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_django import conf, webhooks

SECRET = "whsec_test"
ADMINS = ["ann@example.com"] if django.VERSION >= (6, 0) else [("Ann", "ann@example.com")]
pytestmark = pytest.mark.django_db


def receive(type):
    delivery = sign_delivery(sample_event(type), secret=SECRET)
    assert webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body)).status == 200


@pytest.mark.parametrize("value", [True, "on"])
def test_alerts_are_mailed_to_the_administrators(value):
    setting = {"WEBHOOK_SECRET": SECRET, "ALERTS_MAIL_ADMINS": value, "RETRY_MAX_ATTEMPTS": 1}
    with override_settings(ENVOYOU=setting, ADMINS=ADMINS):
        webhooks.on("user.created", name="fails")(lambda event: 1 / 0)
        receive("user.created")
        webhooks.drain()
        webhooks.setup()._evaluate_alerts()
    (message,) = mail.outbox
    assert message.to == ["ann@example.com"]
    assert message.subject == "[Django] EnvoyOU webhooks (default): dead_letters FIRING"
    assert message.body.startswith("1 events are dead\n")


@pytest.mark.parametrize("value", [False, "off"])
def test_by_default_nobody_is_mailed(value):
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET, "ALERTS_MAIL_ADMINS": value}):
        assert not conf.mails_admins()
        webhooks.setup()
    with (
        override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET, "ALERTS_MAIL_ADMINS": "perhaps"}),
        pytest.raises(ConfigurationError, match="must be true or false"),
    ):
        webhooks.setup()


def test_a_summary_counts_what_a_test_has_received():
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET}):
        webhooks.on("user.created")(lambda event: None)
        receive("user.created")
        webhooks.drain()
        summary = webhooks.analytics.summary(timedelta(hours=1))
    assert (summary.deliveries.accepted, summary.events.processed) == (1, 1)
