"""Invalid settings in commands, in servers and in scripts that set Django up."""

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
    ("command", "settings", "id", "message"),
    [
        ("check", MISSPELT, "envoyou.E002", "did you mean 'TOLERANCE'"),
        ("check", NO_SECRET, "envoyou.E001", "ENVOYOU_WEBHOOK_SECRET"),
        ("runserver --noreload 127.0.0.1:0", NO_SECRET, "envoyou.E001", "ENVOYOU_WEBHOOK_SECRET"),
    ],
)
def test_a_command_reports_invalid_settings_without_a_traceback(site, command, settings, id, message):
    site.configure(settings)
    ran = site.run(*command.split())
    assert ran.returncode == 1
    assert id in ran.stderr
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("command", ["makemigrations --check", "migrate", "test"])
def test_a_command_that_neither_serves_nor_handles_events_needs_no_secret(site, command):
    site.configure("ENVOYOU = {}")
    ran = site.run(*command.split())
    assert ran.returncode == 0, ran.stderr
    assert "envoyou." not in ran.stderr


def test_a_project_can_have_its_secret_in_the_environment_only(site):
    site.configure("del ENVOYOU")
    ran = site.run("check", ENVOYOU_WEBHOOK_SECRET="whsec_of_the_environment")
    assert ran.returncode == 0, ran.stderr


def test_the_urls_of_an_app_that_is_not_installed(site):
    site.configure('INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]')
    ran = site.run("check")
    assert ran.returncode == 1
    assert 'add "envoyou_django" to INSTALLED_APPS' in ran.stderr.splitlines()[-1]


@pytest.mark.parametrize("settings", [NO_SECRET, MISSPELT])
def test_a_command_without_checks_works_with_invalid_settings(site, settings):
    site.configure(
        settings
        + '\nINSTALLED_APPS.append("django.contrib.staticfiles")\nSTATIC_ROOT = "static"\nSTATIC_URL = "/static/"'
    )
    ran = site.run("collectstatic", "--no-input")
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("code", "settings", "message"),
    [
        pytest.param(WSGI, NO_SECRET, "secret", id="wsgi, no secret"),
        pytest.param(ASGI, NO_SECRET, "secret", id="asgi, no secret"),
        pytest.param(WSGI, MISSPELT, "did you mean 'TOLERANCE'", id="a misspelt name"),
        pytest.param(WSGI, 'ENVOYOU["NAME"] = ""', "name", id="an invalid value"),
    ],
)
def test_a_server_does_not_start_with_invalid_settings(site, code, settings, message):
    """A server runs no system checks."""
    site.configure(settings)
    ran = site.run_python(code)
    assert ran.returncode == 1
    last_line = ran.stderr.splitlines()[-1]
    assert last_line.startswith("envoyou_core.errors.ConfigurationError: ")
    assert message in last_line


def test_a_server_starts_with_valid_settings(site):
    site.configure("")
    assert site.run_python(WSGI).returncode == 0


def test_a_script_needs_no_secret_but_valid_setting_names(site):
    site.configure(NO_SECRET)
    assert site.run_python(SET_UP).returncode == 0
    site.configure(MISSPELT)
    ran = site.run_python(SET_UP)
    assert ran.returncode == 1
    assert "did you mean 'TOLERANCE'" in ran.stderr.splitlines()[-1]
