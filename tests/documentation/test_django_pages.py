"""What a reader might do after the pages about Django."""

import pytest

from tests.adapters import chosen
from tests.documentation.pages import Page

pytestmark = [pytest.mark.slow, pytest.mark.skipif("django" not in chosen(), reason="Django is not tested")]

READERS_TESTS = """
from unittest.mock import patch

from django.contrib.auth.models import User
from django.core import mail
from django.test import TestCase, override_settings

from envoyou_core.inbox import NewEvent
from envoyou_core.testing import sample_event
from envoyou_django import webhooks
from envoyou_django.models import ProcessedEvent


@override_settings(ADMINS=[("Ada", "ada@example.com")])
class TestsOfTheReader(TestCase):
    def handle(self, *types):
        for type in types:
            webhooks.inbox.add(NewEvent(sample_event(type))).result()
        webhooks.drain()

    def test_an_account_is_deactivated(self):
        self.handle("user.created")
        self.assertTrue(User.objects.get(username="user_123").is_active)
        self.handle("user.deleted")
        self.assertFalse(User.objects.get(username="user_123").is_active)

    def test_admins_get_a_mail(self):
        self.handle("system.incident")
        self.assertIn("Degraded performance", mail.outbox[0].body)

    def test_a_dead_event_is_logged_and_requeued(self):
        with patch("accounts.webhooks.mail_admins", side_effect=OSError("no mail today")):
            self.handle("system.incident")
            with self.assertLogs("accounts", "CRITICAL") as logs:
                for _ in range(2):
                    ProcessedEvent.objects.make_due()
                    webhooks.drain()
        self.assertIn("system.incident", logs.output[0])
        self.assertEqual(ProcessedEvent.objects.dead().filter(type="system.incident").requeue(), 1)
"""


def test_the_handlers_on_the_page_do_what_it_says(reader, continue_from):
    continue_from("django_project")
    for block in Page("docs/django-guide.md").all_blocks():
        if block.file == "accounts/webhooks.py":
            reader.write(block.file, block.code, adds=block.adds)
    reader.write("accounts/test_of_the_reader.py", READERS_TESTS)
    reader.type("python manage.py test accounts")
