"""Support for the tests of a project: posts signed events with Django's test client and runs their handlers.

    from django.test import TestCase
    from envoyou_django.testing import WebhookTestMixin

    class AccountTests(WebhookTestMixin, TestCase):
        def test_an_account_is_made(self):
            response = self.post_event("user.created", {"id": "user_1", "email": "ada@example.com"})
            self.assertEqual(response.status_code, 200)

With pytest, `pytest_plugins = ["envoyou_django.testing.fixtures"]` in a `conftest.py` provides the fixture
`envoyou_client`.
"""

from __future__ import annotations

from envoyou_django.testing.client import WebhookClient
from envoyou_django.testing.mixin import WebhookTestMixin

__all__ = ["WebhookClient", "WebhookTestMixin"]
