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
from envoyou_django.management.commands.envoyou import _divide as divide
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


def run(*arguments):
    output = StringIO()
    call_command("envoyou", *arguments, stdout=output, skip_checks=True)
    return output.getvalue()


def run_json(*arguments):
    return json.loads(run(*arguments, "--json"))


@pytest.fixture
def fails(capsys):
    """Run a command that fails; returns its exit code and what it says."""

    def fails(*arguments):
        with pytest.raises(CommandError) as caught:
            run(*arguments)
        return caught.value.returncode, " ".join(capsys.readouterr().err.split())

    return fails


# Requeue


@pytest.mark.django_db
def test_requeue_one_event(settings_with_clock, fails):
    one, other = dead("shop.opened", "shop.opened")
    assert run("events", "requeue", one) == "Requeued: 1.\n"
    assert webhooks.inbox.get(one).status == "received"
    assert webhooks.inbox.get(other).status == "dead"
    code, message = fails("events", "requeue", one)
    assert code == 1
    assert one in message


@pytest.mark.django_db
def test_requeue_by_status_and_type(settings_with_clock):
    shop, bank, second = dead("shop.opened", "bank.opened", "bank.opened")
    selected = ("events", "requeue", "--type", "bank.*", "--status", "dead")
    assert run_json(*selected, "--dry-run") == {"would_be_requeued": 2, "refused": []}
    assert webhooks.inbox.stats().by_status["dead"] == 3
    assert run_json("events", "requeue", "--type", "bank.opened", "--tenant", "unknown")["requeued"] == 0
    assert run_json("events", "requeue", "--type", "bank.opened")["requeued"] == 2
    assert [webhooks.inbox.get(id).status for id in (shop, bank, second)] == ["dead", "received", "received"]
    assert run_json("events", "requeue", "--status", "dead")["requeued"] == 1


@pytest.mark.django_db
def test_scrubbed_events_are_not_requeued(settings_with_clock):
    dead("shop.opened")
    ProcessedEvent.objects.update(scrubbed_at=settings_with_clock.moment())
    assert run_json("events", "requeue", "--status", "dead", "--dry-run")["would_be_requeued"] == 0
    assert run_json("events", "requeue", "--status", "dead")["requeued"] == 0


@pytest.mark.django_db
def test_requeue_requires_an_id_or_a_filter(fails):
    code, message = fails("events", "requeue")
    assert code == 2
    assert "name an event id, a status, a type" in message


# Prune


@pytest.mark.django_db
def test_prune_by_age(settings_with_clock):
    @webhooks.on("shop.*", name="works")
    def works(event): ...

    accept(sample_event("shop.opened"))
    accept(sample_event("unhandled.type"))
    webhooks.drain()
    settings_with_clock.advance(3 * 3600)
    assert run_json("prune", "--older-than", "4h") == {"pruned": 0}
    assert run_json("prune", "--older-than", "2h", "--status", "ignored") == {"pruned": 1}
    assert run("prune", "--older-than", "90m") == "Deleted: 1 events.\n"
    assert webhooks.inbox.stats().total == 0


@pytest.mark.django_db
def test_prune_by_the_retention_settings(settings_with_clock):
    @webhooks.on("shop.*", name="works")
    def works(event): ...

    accept(sample_event("shop.opened"))
    webhooks.drain()
    settings_with_clock.advance(31 * DAY)
    assert run_json("prune") == {"pruned": 0, "scrubbed": 1, "marks": 0, "rejected": 0}
    settings_with_clock.advance(60 * DAY)
    assert run("prune") == "Deleted: 1 events, the payloads of 0, 0 marks, 0 rejected deliveries.\n"


@pytest.mark.django_db
def test_prune_with_invalid_options(fails):
    assert fails("prune", "--status", "dead")[0] == 2
    assert "soon" in fails("prune", "--older-than", "soon")[1]


# Stats


@pytest.mark.django_db
def test_stats_count_finished_events_up_to_a_limit(settings_with_clock, monkeypatch):
    monkeypatch.setattr("envoyou_django.inbox.records.COUNTED", 1)
    for _ in range(2):
        accept(sample_event("unhandled.type"))
    webhooks.on("shop.never", name="never")(lambda event: None)
    webhooks.drain()
    assert run_json("stats")["at_least"] == ["ignored"]
    lines = dict(line.strip().split(maxsplit=1) for line in run("stats").splitlines())
    assert (lines["ignored"], lines["total"]) == ("1+", "1+")
    assert run_json("stats", "--exact")["by_status"]["ignored"] == 2


@pytest.mark.django_db
def test_stats(settings_with_clock, fails):
    dead("shop.opened")
    accept(sample_event("unhandled.type"))
    webhooks.pause(type="unhandled.*")
    settings_with_clock.advance(61)
    stats = run_json("stats")
    assert stats["by_status"]["dead"] == stats["by_status"]["received"] == 1
    assert (stats["total"], stats["overdue"], stats["paused"]) == (2, 61.0, ["type:unhandled.*"])
    assert stats["at_least"] == []
    lines = dict(line.strip().split(maxsplit=1) for line in run("stats").splitlines())
    assert (lines["dead"], lines["total"], lines["overdue"], lines["paused"]) == ("1", "2", "61 s", "type:unhandled.*")
    assert lines["inbox"] == stats["inbox"]
    assert str(connections["default"].settings_dict["NAME"]) in stats["inbox"]
    assert run("stats", "--max-overdue", "2m")
    code, message = fails("stats", "--max-overdue", "1m")
    assert code == 1
    assert "61 s" in message


def test_max_overdue_requires_a_unit(fails):
    _, message = fails("stats", "--max-overdue", "300")
    assert "300s" in message


@pytest.mark.django_db
def test_an_unsupported_database_is_reported(monkeypatch, fails):
    monkeypatch.setattr(type(connections["default"]), "vendor", "oracle")
    code, message = fails("stats")
    assert code == 1
    assert "to hold the inbox" in message


def test_without_its_tables_a_command_names_the_command_to_run(tmp_path, django_db_blocker, fails):
    with (
        django_db_blocker.unblock(),
        sqlite_database("contract", tmp_path / "empty.db", "contenttypes"),
        inbox_on("contract"),
    ):
        code, message = fails("stats")
    assert code == 1
    assert "migrate --database contract" in message


# Send


@pytest.fixture
def served():
    with runserver(WSGIHandler()) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.django_db(transaction=True)
def test_trigger_to_the_projects_own_url(served):
    output = run("trigger", "member.seen", "--server", served, "--data", '{"id": "m1"}')
    assert output.endswith(': 200 {"received": true}\n')
    (record,) = webhooks.inbox.list()
    assert (record.event.type, record.event.data.object) == ("member.seen", {"id": "m1"})
    sent = run_json("trigger", "--to", f"{served}/webhooks/envoyou/")
    assert [(each["status"], json.loads(each["answer"])) for each in sent["answers"]] == [(200, {"received": True})]
    assert webhooks.inbox.get(*sent["ids"]).event.type == "user.created"
    webhooks.stop()


def tenants(webhook_id):
    return {"wh_acme": Tenant("acme", ["whsec_new", "whsec_old"])}.get(webhook_id)


@pytest.mark.django_db(transaction=True)
def test_trigger_with_the_secret_of_an_endpoint(served, fails):
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": tenants, "HANDOFF": "manual"}):
        assert run_json("trigger", "--server", served, "--webhook-id", "wh_acme")["answers"][0]["status"] == 200
        code, message = fails("trigger", "--server", served)
    assert code == 1
    assert "wh_1234567890" in message


@pytest.mark.django_db(transaction=True)
def test_trigger_fails_if_the_event_is_refused(served):
    output = StringIO()
    with pytest.raises(CommandError, match="has failed"):
        call_command("envoyou", "trigger", "--to", f"{served}/nowhere", stdout=output, skip_checks=True)
    assert ": 404 " in output.getvalue()


def test_trigger_without_a_server(fails):
    code, message = fails("trigger", "--server", "http://127.0.0.1:9")
    assert code == 1
    assert "Is the server running?" in message


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data", "{"], 2, "invalid JSON"),
        (["--data", "[]"], 2, "expected a JSON object, got list"),
        (["--to", "ftp://127.0.0.1/"], 1, "must be one such as"),
        (["\n"], 1, "type"),
    ],
)
def test_trigger_with_invalid_options(fails, arguments, code, message):
    exit_code, error = fails("trigger", *arguments)
    assert exit_code == code
    assert message in error


def test_trigger_in_a_project_without_an_endpoint(fails):
    urlconf = ModuleType("urlconf")
    urlconf.urlpatterns = []
    with override_settings(ROOT_URLCONF=urlconf):
        assert "name the URL" in fails("trigger")[1]


# The command itself


def test_without_typer_the_error_names_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "envoyou_core.cli.command_line", raising=False)
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(CommandError, match=r"typer is not installed: pip install 'envoyou-webhooks\[django\]'"):
        run("stats")


def test_migrate_creates_the_tables_of_the_inbox(tmp_path, django_db_blocker):
    with (
        django_db_blocker.unblock(),
        sqlite_database("contract", tmp_path / "empty.db", "contenttypes"),
        inbox_on("contract"),
    ):
        assert "0001_initial" in run("migrate")
        assert run_json("stats")["total"] == 0


@pytest.mark.django_db
def test_an_unexpected_error_is_shown_with_its_traceback_if_asked(monkeypatch, capsys):
    def fails(**_):
        raise OSError("away")

    monkeypatch.setattr(webhooks.inbox, "stats", fails)
    for options, has_traceback in (({}, False), ({"traceback": True}, True)):
        with pytest.raises(CommandError):
            call_command("envoyou", "stats", skip_checks=True, **options)
        said = capsys.readouterr().err
        assert said.endswith("Error: OSError: away\n")
        assert ("Traceback" in said) == has_traceback


@pytest.mark.parametrize(
    ("given", "own", "others"),
    [
        (["stats", "--json", "--settings", "a", "-v", "0"], ["--settings", "a", "-v", "0"], ["stats", "--json"]),
        (["--settings=a", "stats", "--no-color"], ["--settings=a", "--no-color"], ["stats"]),
        (["events", "requeue", "--", "--no-color", "-v"], [], ["events", "requeue", "--", "--no-color", "-v"]),
        (["--version"], [], ["--version"]),
        (["stats", "-v"], ["-v"], ["stats"]),
    ],
)
def test_options_of_django_may_stand_anywhere(given, own, others):
    assert divide(given) == (own, others)


def test_it_runs_in_a_process_with_options_of_django_behind_it(separate_project):
    ran = separate_project.run("envoyou", "stats", "--json", "--settings=site_settings", "-v", "0", "--no-color")
    assert (ran.returncode, json.loads(ran.stdout)["total"]) == (0, 0), ran.stderr
    ran = separate_project.run("envoyou", "--help")
    assert ran.returncode == 0
    assert "Exit codes: " in ran.stdout
    assert separate_project.run("envoyou", "stats", "--unknown").returncode == 2


def test_envoyou_takes_the_project_as_its_application(separate_project):
    program = "from envoyou_core.cli import main; main()"
    command = [sys.executable, "-c", program, "--app", "envoyou_django:webhooks", "handlers", "--json"]
    ran = separate_project._run(command, {"DJANGO_SETTINGS_MODULE": "site_settings"})
    assert [handler["name"] for handler in json.loads(ran.stdout)] == ["note"], ran.stderr
    ran = separate_project._run(command, {})
    assert ran.returncode == 1
    assert "Error: Django is not configured: " in ran.stderr
    assert "DJANGO_SETTINGS_MODULE" in ran.stderr


# On a terminal


@pytest.fixture(scope="module")
def separate_project(tmp_path_factory, django_db_blocker):
    project = Project(tmp_path_factory.mktemp("project"))
    with django_db_blocker.unblock(), sqlite_database("contract", project.database, "envoyou_django"):
        yield project


def test_progress_is_shown_on_a_terminal(separate_project):
    with inbox_on("contract"):
        for _ in range(3):
            accept(sample_event())
        ProcessedEvent.objects.using("contract").update(status="dead", due_at=None)
    output, shown = run_on_a_terminal(separate_project, "envoyou", "events", "requeue", "--status", "dead", "--json")
    assert json.loads(output)["requeued"] == 3
    assert "Requeueing" in shown
    assert "100%" in shown
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
