"""The system checks: each finds what it is for, and is silent where that is not."""

from __future__ import annotations

import logging
import re
import sqlite3
import sys
from contextlib import ExitStack
from functools import wraps
from importlib import import_module
from types import ModuleType

import django
import pytest
from asgiref.local import Local
from django.apps import apps
from django.core import checks
from django.db import connections
from django.test import modify_settings, override_settings
from django.urls import clear_url_caches, include, path

from envoyou_core import Handlers
from envoyou_django.checks import TAG
from envoyou_django.project import project_webhooks
from envoyou_django.tasks import tasks_framework
from tests.django.databases import inbox_on
from tests.walkthrough import PROJECT

GOOD_SECRET = "whsec_9b4f2c7d1e8a6053"
SAMPLE = "whsec_your_webhook_secret_key"


def found(*, deploy=False, only=None):
    """The ids of what the checks have to say, but for `only` some of them."""
    messages = checks.run_checks(tags=[TAG], include_deployment_checks=deploy)
    assert all(message.hint for message in messages)
    return sorted(message.id for message in messages if only is None or message.id in only)


def message(id, *, deploy=False):
    [found] = [it for it in checks.run_checks(tags=[TAG], include_deployment_checks=deploy) if it.id == id]
    return found


def said(id, *, deploy=False):
    return message(id, deploy=deploy).msg


def with_settings(**settings):
    return override_settings(ENVOYOU={"WEBHOOK_SECRET": GOOD_SECRET, **settings})


@pytest.fixture(autouse=True)
def good_settings():
    with with_settings():
        yield


@pytest.fixture
def urls():
    """Have these as the project's URLs."""
    overriding = []

    def use(*patterns):
        module = ModuleType("made_up_urls")
        module.urlpatterns = list(patterns)
        override = override_settings(ROOT_URLCONF=module)
        override.enable()
        overriding.append(override)

    yield use
    for override in overriding:
        override.disable()
    clear_url_caches()


# Settings


@pytest.mark.parametrize("settings", [{}, {"WEBHOOK_SECRET": None}, {"WEBHOOK_SECRET": ""}, {"WEBHOOK_SECRET": []}])
def test_no_secret(settings):
    with override_settings(ENVOYOU=settings):
        assert found() == ["envoyou.E001"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"TOLERENCE": 5}, "did you mean 'TOLERANCE'"),
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
def test_settings_that_cannot_work(settings, words):
    with with_settings(**settings):
        assert found(deploy=True) == ["envoyou.E002"]
        assert words in said("envoyou.E002")
        assert "whsec" not in said("envoyou.E002")


def test_settings_that_work():
    errors = [id for id in found() if id.startswith("envoyou.E")]
    assert errors == []


def test_other_apps_are_not_our_affair():
    with override_settings(ENVOYOU={}):
        auth = [apps.get_app_config("auth")]
        assert [it for it in checks.run_checks(app_configs=auth, tags=[TAG]) if it.id.startswith("envoyou")] == []
        ours = [apps.get_app_config("envoyou_django")]
        assert [it.id for it in checks.run_checks(app_configs=ours, tags=[TAG])] == ["envoyou.E001"]


def test_they_are_there_once_however_often_the_apps_are_set_up():
    with override_settings(ENVOYOU={}), modify_settings(INSTALLED_APPS={"append": "django.contrib.sites"}):
        assert found() == ["envoyou.E001"]


def test_they_run_with_all_others():
    with override_settings(ENVOYOU={}):
        assert "envoyou.E001" in [message.id for message in checks.run_checks(databases=[])]


# URLs

ADDRESS = {"envoyou.W001", "envoyou.W002", "envoyou.E004"}


def test_urls_that_do_not_receive(urls):
    urls(path("admin/", include([])))
    assert found(only=ADDRESS) == ["envoyou.W001"]


def test_urls_that_receive_however_deep_they_are_included(urls):
    inner = [path("envoyou", include("envoyou_django.urls"))]
    urls(path("api/", include(([path("hooks/", include(inner))], "api"), namespace="v1")))
    assert found(only=ADDRESS) == []


def test_an_address_that_has_to_end_with_a_slash(urls):
    urls(path("webhooks/envoyou/", include("envoyou_django.urls")))
    assert found(only=ADDRESS) == ["envoyou.W002"]
    assert "'webhooks/envoyou/'" in said("envoyou.W002")


def test_a_view_that_has_lost_its_exemptions(urls):
    from envoyou_django.views import receive

    def careless(request):
        return receive(request)

    careless.__wrapped__ = receive
    urls(path("webhooks/envoyou", careless, name="receive"))
    # The tests' project has all that gets in the way.
    assert connections["default"].settings_dict["ATOMIC_REQUESTS"]
    assert found(only=ADDRESS) == ["envoyou.E004"]
    assert "CSRF tokens and logging in and ATOMIC_REQUESTS" in said("envoyou.E004")
    with override_settings(MIDDLEWARE=[]):
        assert "exempts it from ATOMIC_REQUESTS:" in said("envoyou.E004")
        connections["default"].settings_dict["ATOMIC_REQUESTS"] = False
        assert found(only=ADDRESS) == []


def test_a_view_that_is_wrapped_with_care(urls):
    from envoyou_django.views import receive

    @wraps(receive)
    def careful(request):
        return receive(request)

    urls(path("webhooks/envoyou", careful, name="receive"))
    assert found(only=ADDRESS) == []


# Handlers


def test_no_handlers(monkeypatch):
    assert found(only={"envoyou.W003"}) == []
    monkeypatch.setattr(project_webhooks, "_handlers", Handlers())
    assert found(only={"envoyou.W003"}) == ["envoyou.W003"]
    assert "'webhooks'" in message("envoyou.W003").hint


def test_handlers_of_an_app_whose_models_are_elsewhere(postgres_alias):
    """In a Django project the members' app has handlers, and its model lives on the default database."""
    assert found(only={"envoyou.W007"}) == []
    with inbox_on(postgres_alias):
        assert found(only={"envoyou.W007"}) == ["envoyou.W007"]
        assert "members.Member" in said("envoyou.W007")
        assert "on another database than the inbox, 'postgres'." in said("envoyou.W007")


# Task queues

FRAMEWORK = tasks_framework()


@pytest.fixture
def tasks(monkeypatch):
    """Have these as the project's `TASKS`, and hand the work to them."""
    overriding = ExitStack()

    def use(tasks, **settings):
        overriding.enter_context(override_settings(TASKS=tasks))
        overriding.enter_context(with_settings(HANDOFF="django_tasks", **settings))
        handler = FRAMEWORK.task_backends
        monkeypatch.setattr(handler, "_settings", tasks)
        monkeypatch.setattr(handler, "settings", handler.configure_settings(tasks))
        monkeypatch.setattr(handler, "_connections", Local())
        # The task is made anew from them.
        monkeypatch.delitem(sys.modules, "envoyou_django.tasks", raising=False)

    yield use
    overriding.close()


def backend(kind):
    return {"BACKEND": f"{FRAMEWORK.__name__}.backends.{kind.lower()}.{kind}Backend"}


QUEUES = {"envoyou.E002", "envoyou.E003", "envoyou.W006"}


@pytest.mark.parametrize(
    ("kind", "does"), [("Immediate", "in the processes that serve"), ("Dummy", "not run tasks at all")]
)
def test_a_backend_that_has_no_workers(tasks, kind, does):
    tasks({"default": backend(kind)})
    assert found(only=QUEUES) == ["envoyou.W006"]
    assert does in said("envoyou.W006")


def test_a_backend_that_has_workers(tasks):
    tasks({"default": backend("Dummy"), "others": {"BACKEND": f"{__name__}.QueueBackend"}}, TASKS_BACKEND="others")
    assert found(only=QUEUES) == []


@pytest.mark.parametrize(
    "settings", [{"TASKS_BACKEND": "nowhere"}, {"TASKS_QUEUE": "nowhere"}], ids=["no backend", "no queue"]
)
def test_a_backend_that_does_not_take_the_task(tasks, settings):
    tasks({"default": backend("Immediate")}, **settings)
    assert found() == ["envoyou.E003"]
    assert "nowhere" in said("envoyou.E003")


def test_no_tasks_before_django_6(tasks, monkeypatch):
    monkeypatch.setitem(sys.modules, "django.tasks", None)
    monkeypatch.setitem(sys.modules, "django_tasks", None)
    monkeypatch.delattr(django, "tasks", raising=False)
    with with_settings(HANDOFF="django_tasks"):
        monkeypatch.delitem(sys.modules, "envoyou_django.tasks", raising=False)
        assert found() == ["envoyou.E003"]
        assert "envoyou-webhooks[django-tasks]" in said("envoyou.E003")


class QueueBackend(import_module(f"{FRAMEWORK.__name__}.backends.base").BaseTaskBackend):
    def enqueue(self, task, args, kwargs): ...


# Databases

SQLITE = {"envoyou.W004", "envoyou.W005"}


def sqlite_with(monkeypatch, **options):
    monkeypatch.setitem(connections["default"].settings_dict, "OPTIONS", options)


def test_sqlite_as_django_sets_it_up(monkeypatch):
    assert found(only=SQLITE) == ["envoyou.W004", "envoyou.W005"]


def test_sqlite_whose_every_request_holds_the_lock(monkeypatch):
    sqlite_with(monkeypatch, transaction_mode="IMMEDIATE")
    for asked in (True, False):
        monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", asked)
        assert (found(only={"envoyou.W012"}) == ["envoyou.W012"]) is asked


def test_a_database_that_cannot_tell_what_is_new(monkeypatch):
    # A stand-in: none of the databases that the tests have lacks RETURNING.
    monkeypatch.setattr(connections["default"], "vendor", "oracle")
    ids = {
        databases: [it.id for it in checks.run_checks(tags=[TAG], databases=databases) if it.id == "envoyou.E005"]
        for databases in ((), ("other",), ("default",))
    }
    assert ids == {(): [], ("other",): [], ("default",): ["envoyou.E005"]}


def test_a_database_that_can_tell_what_is_new():
    assert "envoyou.E005" not in [it.id for it in checks.run_checks(tags=[TAG], databases=["default"])]


def test_sqlite_as_it_should_be(monkeypatch):
    sqlite_with(monkeypatch, transaction_mode="IMMEDIATE", init_command="PRAGMA journal_mode = WAL;")
    assert found(only=SQLITE) == []


def test_a_sqlite_file_that_is_in_wal_mode_already(monkeypatch, tmp_path):
    file = tmp_path / "project.db"
    monkeypatch.setitem(connections["default"].settings_dict, "NAME", file)
    sqlite_with(monkeypatch, transaction_mode="immediate")
    for mode, expected in (("delete", ["envoyou.W004"]), ("wal", [])):
        connection = sqlite3.connect(file)
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute("CREATE TABLE IF NOT EXISTS something (id INTEGER)")
        connection.close()
        assert found(only=SQLITE) == expected


def test_a_sqlite_file_that_is_not_there_yet(monkeypatch, tmp_path):
    monkeypatch.setitem(connections["default"].settings_dict, "NAME", str(tmp_path / "project.db"))
    sqlite_with(monkeypatch, transaction_mode="IMMEDIATE")
    assert found(only=SQLITE) == ["envoyou.W004"]
    assert list(tmp_path.iterdir()) == []


def test_another_database_is_not_asked_for_wal(server_alias):
    with inbox_on(server_alias):
        assert found(only=SQLITE) == []


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
def test_a_secret_that_anyone_may_know(secret):
    with with_settings(WEBHOOK_SECRET=secret):
        assert found(only={"envoyou.W008"}) == [], "only a deployment has to have one"
        assert found(deploy=True, only=DEPLOYMENT) == ["envoyou.W008"]
        assert str(secret) not in said("envoyou.W008", deploy=True)


def secret_of_tenant(webhook_id):
    return "whsec_1"


@pytest.mark.parametrize("secret", [GOOD_SECRET, f"{__name__}.secret_of_tenant", secret_of_tenant])
def test_a_secret_that_nobody_knows(secret):
    with with_settings(WEBHOOK_SECRET=secret):
        assert found(deploy=True, only=DEPLOYMENT) == []


def test_a_secret_that_is_written_in_the_settings(tmp_path, monkeypatch):
    package = tmp_path / "made_up_site"
    (package / "settings").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "settings" / "__init__.py").touch()
    (package / "settings" / "base.py").write_text(f'SECRET = "{GOOD_SECRET}"')
    (package / "settings" / "live.py").write_text("from made_up_site.settings.base import *")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("made_up_site", "made_up_site.settings", "made_up_site.settings.base", "made_up_site.settings.live"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    __import__("made_up_site.settings.live")
    with override_settings(SETTINGS_MODULE="made_up_site.settings.live"):
        assert found(deploy=True, only=DEPLOYMENT) == ["envoyou.W009"]
        assert "made_up_site.settings.base:" in said("envoyou.W009", deploy=True)
        assert GOOD_SECRET not in said("envoyou.W009", deploy=True)
        with with_settings(WEBHOOK_SECRET="whsec_of_the_environment"):
            assert found(deploy=True, only=DEPLOYMENT) == []


@pytest.mark.parametrize(("handoff", "expected"), [("manual", ["envoyou.W010"]), ("thread", []), ("auto", [])])
def test_nobody_is_known_to_do_the_work(handoff, expected):
    with with_settings(HANDOFF=handoff):
        assert found(only=DEPLOYMENT) == []
        assert found(deploy=True, only=DEPLOYMENT) == expected


def test_an_inbox_in_memory(monkeypatch):
    monkeypatch.setitem(connections["default"].settings_dict, "NAME", ":memory:")
    assert found(deploy=True, only=DEPLOYMENT) == ["envoyou.W011"]
    assert found(only=SQLITE) == []


def test_all_is_well_in_a_project_that_does_as_it_is_told(monkeypatch):
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", False)
    sqlite_with(monkeypatch, transaction_mode="IMMEDIATE", init_command="PRAGMA journal_mode=WAL")
    assert found(deploy=True) == []


# Logging


def test_a_disabled_logger(monkeypatch):
    assert found(only={"envoyou.W013"}) == []
    monkeypatch.setattr(logging.getLogger("envoyou"), "disabled", True)
    monkeypatch.setattr(logging.getLogger("envoyou.django"), "disabled", True)
    assert found(only={"envoyou.W013"}) == ["envoyou.W013"]
    assert "'envoyou', 'envoyou.django'" in said("envoyou.W013")
    assert "disable_existing_loggers" in message("envoyou.W013").hint


# Documentation


def test_the_documentation_lists_them_all():
    source = (PROJECT / "envoyou_django" / "checks.py").read_text()
    page = (PROJECT / "docs" / "django-operations.md").read_text()
    in_code = re.findall(r'id="(envoyou\.[EW]\d{3})"', source)
    in_table = re.findall(r"^\| `(envoyou\.[EW]\d{3})` \|", page, flags=re.MULTILINE)
    assert len(in_code) == len(set(in_code))
    assert sorted(in_code) == in_table
