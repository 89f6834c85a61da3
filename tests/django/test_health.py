"""Health probes and `doctor` in a Django project."""

import json
import threading
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connections
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.test import override_settings
from django.urls import include, path

from envoyou_core.inbox.inspection import InspectableInbox
from envoyou_django import webhooks
from envoyou_django.inbox.inbox import OrmInbox
from envoyou_django.models import ProcessedEvent

DEAD_PORT = "http://127.0.0.1:9"

urlpatterns = [path("health/", include("envoyou_django.health_urls"))]


@pytest.mark.django_db
@override_settings(ROOT_URLCONF=__name__)
def test_the_probes_of_the_urls(client):
    assert (client.get("/health/live").status_code, client.get("/health/live").json()) == (200, {"status": "ok"})
    # In a test's transaction, which other threads do not see.
    ready = client.get("/health/ready/")
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "inbox": "ok", "spool": "none"})
    assert ready.headers["Cache-Control"] == "no-store"
    worker = client.get("/health/worker")
    assert (worker.status_code, worker.json()["status"]) == (503, "unavailable")
    assert client.get("/health/secrets").status_code == 404
    assert client.post("/health/live").status_code == 405


@pytest.mark.django_db(transaction=True)
@override_settings(ROOT_URLCONF=__name__)
async def test_the_probes_under_asgi(async_client, until_threads_end):
    response = await async_client.get("/health/ready")
    assert (response.status_code, response.json()["inbox"]) == (200, "ok")
    until_threads_end("envoyou-health-inbox")


@pytest.mark.django_db(transaction=True)
def test_a_probe_in_production_asks_in_a_thread_that_leaves_no_connection(until_threads_end):
    assert not webhooks.inbox.belongs_to_thread
    assert webhooks.probes.check("ready").is_ok
    assert ProcessedEvent.objects.count() == 0
    until_threads_end("envoyou-health-inbox")


@pytest.fixture
def until_threads_end():
    def wait(name):
        for thread in threading.enumerate():
            if thread.name == name:
                thread.join(20)
                assert not thread.is_alive()

    return wait


def test_what_an_inbox_shows_of_its_database(inbox_alias):
    inbox = OrmInbox()
    assert isinstance(inbox, InspectableInbox)
    assert inbox.dialect == {"default": "sqlite", "postgres": "postgresql", "mariadb": "mariadb"}[inbox_alias]
    assert (inbox.database_file is None) == (inbox_alias != "default")
    assert inbox.read_row("SELECT 1") == (1,)
    inbox.try_write()
    assert inbox.list() == []


def doctor():
    output = StringIO()
    try:
        call_command("envoyou", "doctor", "--json", "--base-url", DEAD_PORT, stdout=output, skip_checks=True)
        code = 0
    except CommandError as error:
        code = error.returncode
    document = json.loads(output.getvalue())
    return code, {each["check"]: (each["level"], each["text"], each["advice"]) for each in document["findings"]}


@pytest.mark.django_db
def test_doctor_finds_migrations_that_are_not_applied():
    _, found = doctor()
    assert found["schema"][:2] == ("ok", "the migrations are applied")
    [(_, last)] = MigrationLoader(connections["default"]).graph.leaf_nodes("envoyou_django")
    MigrationRecorder(connections["default"]).record_unapplied("envoyou_django", last)
    code, found = doctor()
    level, text, advice = found["schema"]
    assert (code, level) == (1, "problem")
    assert text == f"migrations of envoyou_django are not applied: {last}"
    assert advice == "python manage.py migrate --database default"


@pytest.mark.django_db
@override_settings(ENVOYOU={"WEBHOOK_SECRET": "whsec_of_the_doctor_tests_1234", "HANDOFF": "manual"})
def test_doctor_shows_the_system_checks_of_a_deployment():
    _, found = doctor()
    level, text, advice = found["project"]
    assert level == "warning"
    assert text.startswith("envoyou.W0")
    assert advice
    assert found["writable"][0] == "ok"
    with override_settings(SILENCED_SYSTEM_CHECKS=[f"envoyou.W{number:03}" for number in range(20)]):
        assert doctor()[1]["project"] == ("ok", "Django's system checks find nothing", "")


@pytest.mark.django_db
@override_settings(ENVOYOU={})
def test_doctor_reports_settings_that_keep_other_commands_from_running(capsys):
    from django.core.management import ManagementUtility

    with pytest.raises(SystemExit) as end:
        ManagementUtility(["manage.py", "envoyou", "doctor", "--base-url", DEAD_PORT]).execute()
    assert end.value.code == 1
    assert "problem   secret" in capsys.readouterr().out


@pytest.mark.django_db
def test_doctor_names_a_database_that_cannot_be_written(monkeypatch):
    def fail(*_):
        raise OperationalError("attempt to write a readonly database")

    monkeypatch.setattr("envoyou_django.inbox.inspection.insert_new", fail)
    code, found = doctor()
    assert (code, found["writable"][0]) == (1, "problem")
    assert "attempt to write a readonly database" in found["writable"][1]
