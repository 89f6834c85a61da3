"""The management commands for the inbox, in this process; one also on a real terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from io import StringIO
from types import ModuleType

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import CommandError, call_command
from django.db import connections
from django.test import override_settings

from envoyou_core import Tenant, WebhookRequest
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_django import conf, webhooks
from envoyou_django.models import ProcessedEvent
from tests.contract.clients.django import runserver
from tests.django.conftest import SECRET
from tests.django.databases import empty, inbox_on, sqlite_database
from tests.django.project import Project

DAY = 86_400


@pytest.fixture
def settings_with_clock(clock):
    """Settings with a clock that is set by hand, and one attempt per event."""
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET, "CLOCK": clock, "RETRY_MAX_ATTEMPTS": 1}):
        yield clock


def accept(event):
    delivery = sign_delivery(event, secret=SECRET, timestamp=int(conf.clock()()))
    assert webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body)).status == 200
    return event.id


def dead(*types):
    """Accept events of these types, whose handlers fail; returns the ids of the dead events."""

    @webhooks.on("shop.*", "bank.*", name="fails")
    def fails(event):
        raise ValueError("no")

    ids = [accept(sample_event(type)) for type in types]
    webhooks.drain()
    assert {webhooks.inbox.get(id).status for id in ids} == {"dead"}
    return ids


def run(name, *arguments):
    output = StringIO()
    call_command(name, *arguments, stdout=output, stderr=StringIO(), skip_checks=True)
    return output.getvalue()


def run_json(name, *arguments):
    return json.loads(run(name, *arguments, "--json"))


def fails(name, *arguments):
    with pytest.raises(CommandError) as caught:
        run(name, *arguments)
    return caught.value.returncode, str(caught.value)


# Requeue


@pytest.mark.django_db
def test_requeue_one_event(settings_with_clock):
    one, other = dead("shop.opened", "shop.opened")
    assert run("envoyou_requeue", one) == "Requeued: 1.\n"
    assert webhooks.inbox.get(one).status == "received"
    assert webhooks.inbox.get(other).status == "dead"
    code, message = fails("envoyou_requeue", one)
    assert code == 1
    assert one in message


@pytest.mark.django_db
def test_requeue_by_status_and_type(settings_with_clock):
    shop, bank, second = dead("shop.opened", "bank.opened", "bank.opened")
    assert run_json("envoyou_requeue", "--type", "bank.opened", "--status", "dead", "--dry-run") == {
        "requeued": 0,
        "would_be_requeued": 2,
    }
    assert webhooks.inbox.stats().by_status["dead"] == 3
    assert run_json("envoyou_requeue", "--type", "bank.opened", "--tenant", "unknown") == {"requeued": 0}
    assert run_json("envoyou_requeue", "--type", "bank.opened") == {"requeued": 2}
    assert [webhooks.inbox.get(id).status for id in (shop, bank, second)] == ["dead", "received", "received"]
    assert run_json("envoyou_requeue", "--status", "dead") == {"requeued": 1}


@pytest.mark.django_db
def test_requeue_in_batches(settings_with_clock, monkeypatch):
    monkeypatch.setattr("envoyou_django.management.commands.envoyou_requeue.REQUEUE_BATCH", 2)
    dead(*["shop.opened"] * 5)
    assert run_json("envoyou_requeue", "--status", "dead") == {"requeued": 5}


@pytest.mark.django_db
def test_scrubbed_events_are_not_requeued(settings_with_clock):
    dead("shop.opened")
    ProcessedEvent.objects.update(scrubbed_at=settings_with_clock.moment())
    assert run_json("envoyou_requeue", "--status", "dead", "--dry-run")["would_be_requeued"] == 0
    assert run_json("envoyou_requeue", "--status", "dead") == {"requeued": 0}


@pytest.mark.django_db
def test_requeue_requires_an_id_or_a_filter():
    code, message = fails("envoyou_requeue")
    assert code == 2
    assert "name an event id, a status, a type or an object" in message


# Prune


@pytest.mark.django_db
def test_prune_by_age(settings_with_clock):
    @webhooks.on("shop.*", name="works")
    def works(event): ...

    accept(sample_event("shop.opened"))
    accept(sample_event("unhandled.type"))
    webhooks.drain()
    settings_with_clock.advance(3 * 3600)
    assert run_json("envoyou_prune", "--older-than", "4h") == {"pruned": 0}
    assert run_json("envoyou_prune", "--older-than", "2h", "--status", "ignored") == {"pruned": 1}
    assert run("envoyou_prune", "--older-than", "90m") == "Deleted: 1 events.\n"
    assert webhooks.inbox.stats().total == 0


@pytest.mark.django_db
def test_prune_by_the_retention_settings(settings_with_clock):
    @webhooks.on("shop.*", name="works")
    def works(event): ...

    accept(sample_event("shop.opened"))
    webhooks.drain()
    settings_with_clock.advance(31 * DAY)
    assert run_json("envoyou_prune") == {"pruned": 0, "scrubbed": 1, "marks": 0, "rejected": 0}
    settings_with_clock.advance(60 * DAY)
    assert run("envoyou_prune") == "Deleted: 1 events, the payloads of 0, 0 marks, 0 rejected deliveries.\n"


@pytest.mark.django_db
def test_prune_with_invalid_options():
    assert fails("envoyou_prune", "--status", "dead")[0] == 2
    with pytest.raises(CommandError, match="soon"):
        run("envoyou_prune", "--older-than", "soon")


# Stats


@pytest.mark.django_db
def test_stats_count_finished_events_up_to_a_limit(settings_with_clock, monkeypatch):
    monkeypatch.setattr("envoyou_django.inbox.inbox.COUNTED", 1)
    for _ in range(2):
        accept(sample_event("unhandled.type"))
    webhooks.on("shop.never", name="never")(lambda event: None)
    webhooks.drain()
    assert run_json("envoyou_stats")["at_least"] == ["ignored"]
    lines = dict(line.split(maxsplit=1) for line in run("envoyou_stats").splitlines())
    assert (lines["ignored"], lines["total"]) == ("1+", "1+")
    assert run_json("envoyou_stats", "--exact")["by_status"]["ignored"] == 2


@pytest.mark.django_db
def test_stats(settings_with_clock):
    dead("shop.opened")
    accept(sample_event("unhandled.type"))
    webhooks.pause(type="unhandled.*")
    settings_with_clock.advance(61)
    stats = run_json("envoyou_stats")
    assert stats["by_status"]["dead"] == stats["by_status"]["received"] == 1
    assert (stats["total"], stats["overdue"], stats["paused"]) == (2, 61.0, ["type:unhandled.*"])
    assert stats["at_least"] == []
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in run("envoyou_stats").splitlines()}
    assert (lines["dead"], lines["total"], lines["overdue"], lines["paused"]) == ("1", "2", "61 s", "type:unhandled.*")
    assert lines["inbox"] == stats["inbox"]
    assert str(connections["default"].settings_dict["NAME"]) in stats["inbox"]
    assert run("envoyou_stats", "--max-overdue", "2m")
    code, message = fails("envoyou_stats", "--max-overdue", "1m")
    assert code == 1
    assert "61 s" in message


def test_max_overdue_requires_a_unit():
    _, message = fails("envoyou_stats", "--max-overdue", "300")
    assert "300s" in message


@pytest.mark.django_db
def test_an_unsupported_database_is_reported(monkeypatch):
    monkeypatch.setattr(type(connections["default"]), "vendor", "oracle")
    code, message = fails("envoyou_stats")
    assert code == 1
    assert "to hold the inbox" in message


def test_without_its_tables_a_command_names_the_command_to_run(tmp_path, django_db_blocker):
    with (
        django_db_blocker.unblock(),
        sqlite_database("contract", tmp_path / "empty.db", "contenttypes"),
        inbox_on("contract"),
    ):
        code, message = fails("envoyou_stats")
    assert code == 1
    assert "migrate --database contract" in message


# Send


@pytest.fixture
def served():
    with runserver(WSGIHandler()) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.django_db(transaction=True)
def test_send_to_the_projects_own_url(served):
    output = run("envoyou_send", "--server", served, "--type", "member.seen", "--data", '{"id": "m1"}')
    assert output.endswith('/webhooks/envoyou: 200 {"received": true}\n')
    (record,) = webhooks.inbox.list()
    assert (record.event.type, record.event.data.object) == ("member.seen", {"id": "m1"})
    sent = run_json("envoyou_send", "--url", f"{served}/webhooks/envoyou/")
    assert (sent["status"], json.loads(sent["answer"])) == (200, {"received": True})
    assert webhooks.inbox.get(sent["id"]).event.type == "user.created"
    webhooks.stop()


def tenants(webhook_id):
    return {"wh_acme": Tenant("acme", ["whsec_new", "whsec_old"])}.get(webhook_id)


@pytest.mark.django_db(transaction=True)
def test_send_with_the_secret_of_an_endpoint(served):
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": tenants, "HANDOFF": "manual"}):
        assert run_json("envoyou_send", "--server", served, "--webhook-id", "wh_acme")["status"] == 200
        code, message = fails("envoyou_send", "--server", served)
    assert code == 1
    assert "wh_1234567890" in message


@pytest.mark.django_db(transaction=True)
def test_send_fails_if_the_event_is_refused(served):
    output = StringIO()
    with pytest.raises(CommandError, match="not accepted"):
        call_command("envoyou_send", "--url", f"{served}/nowhere", stdout=output, skip_checks=True)
    assert ": 404 " in output.getvalue()


def test_send_without_a_server():
    code, message = fails("envoyou_send", "--server", "http://127.0.0.1:9")
    assert code == 1
    assert "Is the server running?" in message


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data", "{"], 2, "must be JSON"),
        (["--data", "[]"], 2, "must be a JSON object, got list"),
        (["--url", "ftp://127.0.0.1/"], 1, "must be one such as"),
        (["--type", "\n"], 1, "type"),
    ],
)
def test_send_with_invalid_options(arguments, code, message):
    exit_code, error = fails("envoyou_send", *arguments)
    assert exit_code == code
    assert message in error


def test_send_in_a_project_without_an_endpoint():
    urlconf = ModuleType("urlconf")
    urlconf.urlpatterns = []
    with override_settings(ROOT_URLCONF=urlconf):
        assert "give --url" in fails("envoyou_send")[1]


# On a terminal


@pytest.fixture(scope="module")
def separate_project(tmp_path_factory, django_db_blocker):
    project = Project(tmp_path_factory.mktemp("project"))
    with django_db_blocker.unblock(), sqlite_database("contract", project.database, "envoyou_django"):
        yield project


@pytest.mark.parametrize("has_rich", [True, False])
def test_progress_is_shown_on_a_terminal(separate_project, has_rich):
    project = separate_project
    with inbox_on("contract"):
        ids = [accept(sample_event()) for _ in range(3)]
        ProcessedEvent.objects.using("contract").update(status="dead", due_at=None)
    (project.folder / "without" / "rich").mkdir(parents=True, exist_ok=True)
    project.write("without/rich/__init__.py", "raise ModuleNotFoundError('rich')")
    first = "" if has_rich else str(project.folder / "without")
    output, shown = run_on_a_terminal(project, "envoyou_requeue", "--status", "dead", "--json", FIRST=first)
    assert json.loads(output) == {"requeued": len(ids)}
    assert "Requeueing" in shown
    assert ("100%" if has_rich else "3 of 3") in shown
    with inbox_on("contract"):
        empty("contract")


def run_on_a_terminal(project, *arguments, **environment):
    """Run a command with a pipe as stdout and a terminal as stderr; returns what it wrote to each."""
    terminal, terminal_end = pty.openpty()
    contexts = project._contexts(environment)
    command = [sys.executable, "manage.py", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal_end, text=True, **contexts)
    os.close(terminal_end)
    shown = b""
    try:
        while select.select([terminal], [], [], 30)[0]:
            shown += os.read(terminal, 4096)
    except OSError:
        pass
    finally:
        os.close(terminal)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 0, shown
    return output, shown.decode()
