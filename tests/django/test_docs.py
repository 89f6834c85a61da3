"""Follows the page about Django and the README of the example project as a reader would."""

import re
import shutil

import pytest

from envoyou_core.settings import SETTING_NAMES
from envoyou_django import conf
from tests.quickstart.pages import Page
from tests.quickstart.test_readme import in_code, wrong_defaults
from tests.walkthrough import PROJECT, Reader, read_page

EXAMPLE = PROJECT / "example_projects" / "django_app"
ADDITION = re.compile(r"# ([\w/]+\.py) \(add\)\n")


class DjangoReader(Reader):
    """A reader whose `runserver` listens on a free port."""

    def __init__(self, folder):
        super().__init__(folder, usual_port=8000)

    def serving(self, console):
        assert console[-1] in {"python manage.py runserver", "python manage.py demo"}
        return super().serving([*console[:-1], f"{console[-1]} 127.0.0.1:{self._port}"])

    def type(self, console):
        server_option = f" --server http://127.0.0.1:{self._port}"
        return super().type([line + server_option * line.endswith("envoyou send") for line in console])


def test_the_page_lists_each_setting_with_its_default():
    table = [(in_code(name)[0], default) for name, default, _ in Page("docs/django.md").rows("Settings")]
    assert {name for name, _ in table} == SETTING_NAMES - {"INBOX"} | conf.OWN_NAMES
    assert wrong_defaults(table) == []


CHECK = "python manage.py check --fail-level WARNING"

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
"""What a reader might try after the page."""


def test_the_page_leads_to_a_processed_event_and_a_passing_test(tmp_path):
    page = read_page("docs/django.md")
    (install, *make), serve, send, test = page.consoles
    assert install == 'pip install "envoyou-webhooks[django]"'
    reader = DjangoReader(tmp_path)
    reader.type(make)
    reader.write(page.files)
    for addition in page.snippets:
        name = ADDITION.match(addition)
        assert name, f"the snippet {addition!r} names no file"
        with (tmp_path / name[1]).open("a") as file:
            file.write(addition)
    with reader.serving(serve):
        assert reader.type(send).endswith('200 {"received": true}\n')
        reader.wait_for("Kept john.doe@example.com")
    (tmp_path / "accounts" / "test_of_the_reader.py").write_text(READERS_TESTS)
    reader.type([*test, CHECK])


@pytest.fixture
def example(tmp_path):
    """A reader with a copy of the example project."""
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sqlite3*", "__pycache__"))
    return DjangoReader(tmp_path)


@pytest.mark.slow
def test_the_example_project_runs_as_its_readme_says(example):
    (install, *serve), send, test = read_page("example_projects/django_app/README.md").consoles
    assert install == "pip install -r requirements.txt"
    example.type(test)
    with example.serving(serve):
        example.wait_for("development server at")
        assert example.type(send).endswith('200 {"received": true}\n')
        # Two events from the command itself, and the one that was sent.
        example.wait_for("kept user_123\n", times=3)
    example.type(["python manage.py makemigrations --check", CHECK])


@pytest.mark.slow
def test_the_example_project_runs_on_postgresql_with_one_variable(example, postgres_url):
    *_, test = read_page("example_projects/django_app/README.md").consoles
    database_url = postgres_url.replace("postgresql+psycopg", "postgres")
    example.type([f"export DATABASE_URL='{database_url}'", *test])


@pytest.mark.slow
def test_the_example_project_does_not_start_in_production_without_a_secret(example):
    with pytest.raises(AssertionError, match="The webhook secret is not configured"):
        example.type(["export DJANGO_SECRET_KEY=from_somewhere", "python manage.py check"])
