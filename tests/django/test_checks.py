"""Tests of the system checks: each reports its problem, and nothing without it."""

from __future__ import annotations

import logging
import re
import sqlite3
import sys
from contextlib import ExitStack
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import django
import pytest
from asgiref.local import Local
from django.apps import apps
from django.conf import settings
from django.conf.urls.i18n import i18n_patterns
from django.contrib.admin.views.decorators import staff_member_required
from django.contrib.auth.decorators import login_required, permission_required
from django.core import checks
from django.db import connections
from django.test import modify_settings, override_settings
from django.urls import clear_url_caches, include, path
from django.views.decorators.cache import never_cache

from envoyou_core import ConfigurationError, Handlers
from envoyou_django.checks import TAG
from envoyou_django.project import project_webhooks
from envoyou_django.tasks import tasks_framework
from envoyou_django.urls import patterns_for
from tests.django.databases import inbox_on
from tests.documentation.pages import PROJECT

GOOD_SECRET = "whsec_9b4f2c7d1e8a6053"
SAMPLE = "whsec_your_webhook_secret_key"


def check_ids(*, deploy=False, only=None):
    """Run the checks and return the ids of their messages, or those that are in `only`."""
    messages = checks.run_checks(tags=[TAG], include_deployment_checks=deploy)
    assert all(message.hint for message in messages)
    return sorted(message.id for message in messages if only is None or message.id in only)


def message(id, *, deploy=False):
    messages = checks.run_checks(tags=[TAG], include_deployment_checks=deploy)
    [match] = [message for message in messages if message.id == id]
    return match


def text_of(id, *, deploy=False):
    return message(id, deploy=deploy).msg


def with_settings(**settings):
    return override_settings(ENVOYOU={"WEBHOOK_SECRET": GOOD_SECRET, **settings})


@pytest.fixture(autouse=True)
def good_settings():
    with with_settings():
        yield


@pytest.fixture
def urls():
    """Return a function that sets the project's URLs."""
    overrides = []

    def use(*patterns):
        module = ModuleType("temporary_urls")
        module.urlpatterns = list(patterns)
        override = override_settings(ROOT_URLCONF=module)
        override.enable()
        overrides.append(override)

    yield use
    for override in overrides:
        override.disable()
    clear_url_caches()


# Settings


@pytest.mark.parametrize("settings", [{}, {"WEBHOOK_SECRET": None}, {"WEBHOOK_SECRET": ""}, {"WEBHOOK_SECRET": []}])
def test_missing_secret(settings):
    with override_settings(ENVOYOU=settings):
        assert check_ids() == ["envoyou.E001"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"TOLERENCE": 5}, "did you mean 'TOLERANCE'"),
        ({"WEBHOOK_SECRET": None, "webhook_secret": GOOD_SECRET}, "did you mean 'WEBHOOK_SECRET'"),
        ({"WEBHOOK_SECRET": None, "SECRET": GOOD_SECRET}, "did you mean 'WEBHOOK_SECRET'"),
        ({"MAX_ATTEMPTS": 5}, "did you mean 'RETRY_MAX_ATTEMPTS'"),
        ({"CLOCK": 5.0}, "the setting CLOCK must be a function"),
        ({"HANDLERS_MODULE": "no module"}, "HANDLERS_MODULE"),
        ({"HANDOFF": "cellery"}, "'celery'"),
        ({"NAME": "n" * 65}, "64 characters"),
        ({"WEBHOOK_SECRET": ["whsec_1", ""]}, "empty"),
        ({"WEBHOOK_SECRET": "nowhere.to.be.found"}, "dotted path"),
        ({"WEBHOOK_SECRET": f"{GOOD_SECRET}\n"}, "ends with U+000A (line feed)"),
        ({"WEBHOOK_SECRET": [GOOD_SECRET, f'"{GOOD_SECRET}"']}, "webhook secret 2 of 2 begins with U+0022"),
        ({"WEBHOOK_SECRET": {"wh_1": GOOD_SECRET, "wh_2": GOOD_SECRET}}, "shares a secret with another entry"),
        ({"WEBHOOK_SECRET": {GOOD_SECRET}}, "got set"),
        ({"WEBHOOK_SECRET": None, "WEBHOOK_SECRET_FILE": "/nowhere/whsec"}, "No such file or directory"),
        ({"WEBHOOK_SECRET_FILE": "/nowhere/whsec"}, "not both"),
    ],
)
def test_invalid_settings(settings, words):
    with with_settings(**settings):
        assert check_ids(deploy=True) == ["envoyou.E002"]
        assert words in text_of("envoyou.E002")
        assert "whsec" not in text_of("envoyou.E002")


def test_a_spool_without_sqlalchemy(monkeypatch):
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with with_settings(SPOOL="sqlite:////var/spool/envoyou.db"):
        assert check_ids() == ["envoyou.E002"]
        assert "pip install 'envoyou-webhooks[django,sql]'" in text_of("envoyou.E002")


def test_an_inbox_in_the_environment(monkeypatch):
    assert check_ids(only={"envoyou.W016"}) == []
    monkeypatch.setenv("ENVOYOU_INBOX", "memory:")
    assert check_ids(only={"envoyou.W016"}) == ["envoyou.W016"]


def test_valid_settings():
    errors = [id for id in check_ids() if id.startswith("envoyou.E")]
    assert errors == []


def test_checks_of_other_apps_do_not_include_ours():
    with override_settings(ENVOYOU={}):
        auth = [apps.get_app_config("auth")]
        assert [it for it in checks.run_checks(app_configs=auth, tags=[TAG]) if it.id.startswith("envoyou")] == []
        ours = [apps.get_app_config("envoyou_django")]
        assert [it.id for it in checks.run_checks(app_configs=ours, tags=[TAG])] == ["envoyou.E001"]


def test_checks_are_registered_once():
    with override_settings(ENVOYOU={}), modify_settings(INSTALLED_APPS={"append": "django.contrib.sites"}):
        assert check_ids() == ["envoyou.E001"]


def test_checks_run_without_a_tag():
    with override_settings(ENVOYOU={}):
        assert "envoyou.E001" in [message.id for message in checks.run_checks(databases=[])]


# URLs

URL_CHECKS = {"envoyou.W001", "envoyou.W002", "envoyou.W015", "envoyou.E004", "envoyou.E008"}


def test_urls_without_the_view(urls):
    urls(path("admin/", include([])))
    assert check_ids(only=URL_CHECKS) == ["envoyou.W001"]


def test_urls_with_nested_includes(urls):
    inner = [path("envoyou", include("envoyou_django.urls"))]
    urls(path("api/", include(([path("hooks/", include(inner))], "api"), namespace="v1")))
    assert check_ids(only=URL_CHECKS) == []


def test_url_with_a_trailing_slash(urls):
    urls(path("webhooks/envoyou/", include("envoyou_django.urls")))
    assert check_ids(only=URL_CHECKS) == ["envoyou.W002"]
    assert "'webhooks/envoyou/'" in text_of("envoyou.W002")


def test_url_in_i18n_patterns(urls):
    urls(*i18n_patterns(path("hooks/", include([path("envoyou", include("envoyou_django.urls"))]))))
    assert check_ids(only=URL_CHECKS) == ["envoyou.W015"]
    assert "hooks/envoyou'" in text_of("envoyou.W015")


@pytest.mark.parametrize("decorate", [login_required, permission_required("auth.add_user"), staff_member_required])
def test_view_that_requires_a_login(urls, decorate):
    from envoyou_django.views import receive

    urls(path("webhooks/envoyou", never_cache(decorate(never_cache(receive))), name="receive"))
    assert check_ids(only=URL_CHECKS) == ["envoyou.E008"]
    assert "'webhooks/envoyou'" in text_of("envoyou.E008")


def test_urls_of_an_app_that_is_not_installed():
    others = [app for app in settings.INSTALLED_APPS if not app.startswith("envoyou_django")]
    # The models of the app stay imported, so only the URLs can be tested in this process.
    with (
        override_settings(INSTALLED_APPS=others),
        pytest.raises(ConfigurationError, match='add "envoyou_django" to INSTALLED_APPS'),
    ):
        patterns_for(print)


def test_decorator_that_loses_exemptions(urls):
    from envoyou_django.views import receive

    def careless(request):
        return receive(request)

    careless.__wrapped__ = receive
    urls(path("webhooks/envoyou", careless, name="receive"))
    # The tests' project enables all three.
    assert connections["default"].settings_dict["ATOMIC_REQUESTS"]
    assert check_ids(only=URL_CHECKS) == ["envoyou.E004"]
    assert "CSRF protection and the login requirement and ATOMIC_REQUESTS" in text_of("envoyou.E004")
    with override_settings(MIDDLEWARE=[]):
        assert "exemption from ATOMIC_REQUESTS," in text_of("envoyou.E004")
        connections["default"].settings_dict["ATOMIC_REQUESTS"] = False
        assert check_ids(only=URL_CHECKS) == []


def test_decorator_that_keeps_exemptions(urls):
    from envoyou_django.views import receive

    @wraps(receive)
    def careful(request):
        return receive(request)

    urls(path("webhooks/envoyou", careful, name="receive"))
    assert check_ids(only=URL_CHECKS) == []


# Handlers


def test_no_handlers(monkeypatch):
    assert check_ids(only={"envoyou.W003"}) == []
    monkeypatch.setattr(project_webhooks, "_registry", Handlers())
    assert check_ids(only={"envoyou.W003"}) == ["envoyou.W003"]
    assert "'webhooks'" in message("envoyou.W003").hint


def test_models_in_another_database_than_the_inbox(postgres_alias):
    """The members' app has handlers, and its model is in the default database."""
    assert check_ids(only={"envoyou.W007"}) == []
    with inbox_on(postgres_alias):
        assert check_ids(only={"envoyou.W007"}) == ["envoyou.W007"]
        assert "members.Member" in text_of("envoyou.W007")
        assert "not in the inbox's database 'postgres'." in text_of("envoyou.W007")


# Task queues

FRAMEWORK = tasks_framework()


@pytest.fixture
def tasks(monkeypatch):
    """Return a function that sets the project's `TASKS` and uses them as task queue."""
    overrides = ExitStack()

    def use(tasks, **settings):
        overrides.enter_context(override_settings(TASKS=tasks))
        overrides.enter_context(with_settings(HANDOFF="django_tasks", **settings))
        handler = FRAMEWORK.task_backends
        monkeypatch.setattr(handler, "_settings", tasks)
        monkeypatch.setattr(handler, "settings", handler.configure_settings(tasks))
        monkeypatch.setattr(handler, "_connections", Local())
        # Importing the module creates the task.
        monkeypatch.delitem(sys.modules, "envoyou_django.tasks", raising=False)

    yield use
    overrides.close()


def backend(kind):
    return {"BACKEND": f"{FRAMEWORK.__name__}.backends.{kind.lower()}.{kind}Backend"}


QUEUES = {"envoyou.E002", "envoyou.E003", "envoyou.W006"}


@pytest.mark.parametrize(("kind", "problem"), [("Immediate", "in the web processes"), ("Dummy", "does not run tasks")])
def test_backend_without_workers(tasks, kind, problem):
    tasks({"default": backend(kind)})
    assert check_ids(only=QUEUES) == ["envoyou.W006"]
    assert problem in text_of("envoyou.W006")


def test_backend_with_workers(tasks):
    tasks({"default": backend("Dummy"), "others": {"BACKEND": f"{__name__}.QueueBackend"}}, TASKS_BACKEND="others")
    assert check_ids(only=QUEUES) == []


@pytest.mark.parametrize(
    "settings", [{"TASKS_BACKEND": "nowhere"}, {"TASKS_QUEUE": "nowhere"}], ids=["no backend", "no queue"]
)
def test_backend_that_rejects_the_task(tasks, settings):
    tasks({"default": backend("Immediate")}, **settings)
    assert check_ids() == ["envoyou.E003"]
    assert "nowhere" in text_of("envoyou.E003")


def test_tasks_framework_not_installed(tasks, monkeypatch):
    monkeypatch.setitem(sys.modules, "django.tasks", None)
    monkeypatch.setitem(sys.modules, "django_tasks", None)
    monkeypatch.delattr(django, "tasks", raising=False)
    with with_settings(HANDOFF="django_tasks"):
        monkeypatch.delitem(sys.modules, "envoyou_django.tasks", raising=False)
        assert check_ids() == ["envoyou.E003"]
        assert "envoyou-webhooks[django-tasks]" in text_of("envoyou.E003")


class QueueBackend(import_module(f"{FRAMEWORK.__name__}.backends.base").BaseTaskBackend):
    def enqueue(self, task, args, kwargs): ...


@pytest.mark.skipif(find_spec("celery") is None, reason="requires Celery")
def test_celery_without_an_app(monkeypatch):
    from celery import Celery, current_app

    monkeypatch.delitem(sys.modules, "envoyou_django.tasks", raising=False)
    with with_settings(HANDOFF="celery"):
        assert check_ids(only={"envoyou.E007"}) == ["envoyou.E007"]
        before = current_app._get_current_object()
        try:
            Celery("site").set_current()
            assert check_ids(only={"envoyou.E007"}) == []
        finally:
            before.set_current()


# Databases

SQLITE = {"envoyou.W004", "envoyou.W005"}


def sqlite_with(monkeypatch, **options):
    monkeypatch.setitem(connections["default"].settings_dict, "OPTIONS", options)


def test_sqlite_with_the_defaults_of_django(monkeypatch):
    assert check_ids(only=SQLITE) == ["envoyou.W004", "envoyou.W005"]


def test_sqlite_in_development(monkeypatch):
    with override_settings(DEBUG=True):
        assert check_ids(only=SQLITE) == []
        assert check_ids(only=SQLITE, deploy=True) == ["envoyou.W004", "envoyou.W005"]
    assert check_ids(only=SQLITE, deploy=True) == ["envoyou.W004", "envoyou.W005"]


def test_sqlite_with_atomic_requests(monkeypatch):
    sqlite_with(monkeypatch, transaction_mode="IMMEDIATE")
    for is_atomic in (True, False):
        monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", is_atomic)
        assert (check_ids(only={"envoyou.W012"}) == ["envoyou.W012"]) is is_atomic


def test_database_without_returning(monkeypatch):
    # Simulated, because all databases of the tests support RETURNING.
    monkeypatch.setattr(connections["default"], "vendor", "oracle")
    ids = {
        databases: [it.id for it in checks.run_checks(tags=[TAG], databases=databases) if it.id == "envoyou.E005"]
        for databases in ((), ("other",), ("default",))
    }
    assert ids == {(): [], ("other",): [], ("default",): ["envoyou.E005"]}


def test_database_with_returning():
    assert "envoyou.E005" not in [it.id for it in checks.run_checks(tags=[TAG], databases=["default"])]


def test_sqlite_as_documented(monkeypatch):
    sqlite_with(monkeypatch, transaction_mode="IMMEDIATE", init_command="PRAGMA journal_mode = WAL;")
    assert check_ids(only=SQLITE) == []


def test_sqlite_file_in_wal_mode(monkeypatch, tmp_path):
    file = tmp_path / "project.db"
    monkeypatch.setitem(connections["default"].settings_dict, "NAME", file)
    sqlite_with(monkeypatch, transaction_mode="immediate")
    for mode, expected in (("delete", ["envoyou.W004"]), ("wal", [])):
        connection = sqlite3.connect(file)
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute("CREATE TABLE IF NOT EXISTS something (id INTEGER)")
        connection.close()
        assert check_ids(only=SQLITE) == expected


def test_sqlite_file_that_does_not_exist(monkeypatch, tmp_path):
    monkeypatch.setitem(connections["default"].settings_dict, "NAME", str(tmp_path / "project.db"))
    sqlite_with(monkeypatch, transaction_mode="IMMEDIATE")
    assert check_ids(only=SQLITE) == ["envoyou.W004"]
    assert list(tmp_path.iterdir()) == []


def test_sqlite_checks_skip_other_databases(server_alias):
    with inbox_on(server_alias):
        assert check_ids(only=SQLITE) == []


# Deployment

DEPLOYMENT = {f"envoyou.W{number:03}" for number in range(8, 12)}


@pytest.mark.parametrize(
    "secret",
    [
        "your-webhook-secret",
        SAMPLE,
        "whsec_123",
        "brief",
        "whsec_" + "ab" * 20,
        [GOOD_SECRET, "brief"],
        {"wh_1": "brief"},
    ],
)
def test_weak_secret(secret):
    with with_settings(WEBHOOK_SECRET=secret):
        assert check_ids(only={"envoyou.W008"}) == [], "weak secrets are allowed in development"
        assert check_ids(deploy=True, only=DEPLOYMENT) == ["envoyou.W008"]
        assert str(secret) not in text_of("envoyou.W008", deploy=True)


def secret_of_tenant(webhook_id):
    return "whsec_1"


@pytest.mark.parametrize("secret", [GOOD_SECRET, f"{__name__}.secret_of_tenant", secret_of_tenant])
def test_strong_secret(secret):
    with with_settings(WEBHOOK_SECRET=secret):
        assert check_ids(deploy=True, only=DEPLOYMENT) == []


def test_secret_in_the_settings_module(tmp_path, monkeypatch):
    package = tmp_path / "temporary_site"
    (package / "settings").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "settings" / "__init__.py").touch()
    (package / "settings" / "base.py").write_text(f'SECRET = "{GOOD_SECRET}"')
    (package / "settings" / "live.py").write_text("from temporary_site.settings.base import *")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("", ".settings", ".settings.base", ".settings.live"):
        monkeypatch.delitem(sys.modules, f"temporary_site{module}", raising=False)
    __import__("temporary_site.settings.live")
    with override_settings(SETTINGS_MODULE="temporary_site.settings.live"):
        assert check_ids(deploy=True, only=DEPLOYMENT) == ["envoyou.W009"]
        assert "temporary_site.settings.base," in text_of("envoyou.W009", deploy=True)
        assert GOOD_SECRET not in text_of("envoyou.W009", deploy=True)
        with with_settings(WEBHOOK_SECRET="whsec_of_the_environment"):
            assert check_ids(deploy=True, only=DEPLOYMENT) == []


@pytest.mark.parametrize(("handoff", "expected"), [("manual", ["envoyou.W010"]), ("thread", []), ("auto", [])])
def test_manual_handoff(handoff, expected):
    with with_settings(HANDOFF=handoff):
        assert check_ids(only=DEPLOYMENT) == []
        assert check_ids(deploy=True, only=DEPLOYMENT) == expected


def test_inbox_in_memory(monkeypatch):
    monkeypatch.setitem(connections["default"].settings_dict, "NAME", ":memory:")
    assert check_ids(deploy=True, only=DEPLOYMENT) == ["envoyou.W011"]
    assert check_ids(only=SQLITE) == []


def test_project_as_documented(monkeypatch):
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", False)
    sqlite_with(monkeypatch, transaction_mode="IMMEDIATE", init_command="PRAGMA journal_mode=WAL")
    assert check_ids(deploy=True) == []


# Logging


def test_disabled_logger(monkeypatch):
    assert check_ids(only={"envoyou.W013"}) == []
    monkeypatch.setattr(logging.getLogger("envoyou"), "disabled", True)
    monkeypatch.setattr(logging.getLogger("envoyou.django"), "disabled", True)
    assert check_ids(only={"envoyou.W013"}) == ["envoyou.W013"]
    assert "'envoyou', 'envoyou.django'" in text_of("envoyou.W013")
    assert "disable_existing_loggers" in message("envoyou.W013").hint


# Documentation


def test_the_documentation_lists_all_checks():
    source = "".join(file.read_text() for file in (PROJECT / "envoyou_django" / "checks").glob("*.py"))
    page = (PROJECT / "docs" / "django-checks.md").read_text()
    in_code = re.findall(r'id="(envoyou\.[EW]\d{3})"', source)
    in_table = re.findall(r"^\| `(envoyou\.[EW]\d{3})` \|", page, flags=re.MULTILINE)
    assert len(in_code) == len(set(in_code))
    assert sorted(in_code) == in_table
