"""Tests of logging in a project whose logging configuration disables existing loggers, which is the default."""

import os
import subprocess
import sys

SETTINGS = """
import sys

from envoyou_core import RetryPolicy
from envoyou_django import webhooks

INSTALLED_APPS = ["envoyou_django"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
ENVOYOU = {"WEBHOOK_SECRET": "whsec_test", "RETRY": RetryPolicy(max_attempts=2)}
LOGGING = {
    "version": 1,
    "handlers": {"out": {"class": "logging.StreamHandler", "stream": sys.stdout}},
    "root": {"handlers": ["out"]},
}
"""

PROCESS = """
import django

django.setup()
django.setup()  # as runserver does

from django.core.management import call_command
from envoyou_core import WebhookRequest
from envoyou_django import webhooks

call_command("check", "--tag", "envoyou")
webhooks.receive(WebhookRequest("GET", b""))
"""


def test_loggers_stay_enabled_if_settings_import_the_package(tmp_path):
    (tmp_path / "settings_that_import.py").write_text(SETTINGS)
    process = subprocess.run(
        [sys.executable, "-c", PROCESS],
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "settings_that_import", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    assert "answered 405: method_not_allowed" in process.stdout
    assert "W013" not in process.stderr
