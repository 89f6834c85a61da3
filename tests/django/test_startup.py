"""What settings that cannot work do to commands, to servers and to everything else that sets Django up."""

from __future__ import annotations

import pytest

from tests.django.project import Project

pytestmark = pytest.mark.slow

NO_SECRET = 'ENVOYOU = {"WEBHOOK_SECRET": ""}'
MISSPELT = 'ENVOYOU["TOLERENCE"] = 60'
WSGI = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "site_settings"
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
"""
ASGI = WSGI.replace("wsgi", "asgi")
SET_UP = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "site_settings"
import django
django.setup()
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return Project(tmp_path_factory.mktemp("project"))


@pytest.mark.parametrize(
    ("command", "settings", "id", "words"),
    [
        ("check", MISSPELT, "envoyou.E002", "did you mean 'TOLERANCE'"),
        ("migrate", NO_SECRET, "envoyou.E001", "ENVOYOU_WEBHOOK_SECRET"),
        ("runserver --noreload 127.0.0.1:0", NO_SECRET, "envoyou.E001", "ENVOYOU_WEBHOOK_SECRET"),
    ],
)
def test_a_command_says_it_without_a_traceback(site, command, settings, id, words):
    site.configure(settings)
    ran = site.run(*command.split())
    assert ran.returncode == 1
    assert id in ran.stderr
    assert words in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("settings", [NO_SECRET, MISSPELT])
def test_a_command_that_needs_no_webhooks_works(site, settings):
    site.configure(
        settings
        + '\nINSTALLED_APPS.append("django.contrib.staticfiles")\nSTATIC_ROOT = "static"\nSTATIC_URL = "/static/"'
    )
    ran = site.run("collectstatic", "--no-input")
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("code", "settings", "words"),
    [
        pytest.param(WSGI, NO_SECRET, "secret", id="wsgi, no secret"),
        pytest.param(ASGI, NO_SECRET, "secret", id="asgi, no secret"),
        pytest.param(WSGI, MISSPELT, "did you mean 'TOLERANCE'", id="a misspelt name"),
        pytest.param(WSGI, 'ENVOYOU["NAME"] = ""', "name", id="a value that cannot be"),
    ],
)
def test_a_server_does_not_start(site, code, settings, words):
    """It runs no checks."""
    site.configure(settings)
    ran = site.run_python(code)
    assert ran.returncode == 1
    last = ran.stderr.splitlines()[-1]
    assert last.startswith("envoyou_core.errors.ConfigurationError: ")
    assert words in last


def test_a_server_whose_settings_work_starts(site):
    site.configure("")
    assert site.run_python(WSGI).returncode == 0


def test_a_script_needs_no_secret_and_no_misspelt_setting(site):
    site.configure(NO_SECRET)
    assert site.run_python(SET_UP).returncode == 0
    site.configure(MISSPELT)
    ran = site.run_python(SET_UP)
    assert ran.returncode == 1
    assert "did you mean 'TOLERANCE'" in ran.stderr.splitlines()[-1]
