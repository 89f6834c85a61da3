"""The commands that look after the inbox, within this process; two of them also on a real terminal."""

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
    """Retries are made at once, and the clock is moved by hand."""
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET, "CLOCK": clock, "RETRY_MAX_ATTEMPTS": 1}):
        yield clock


def accept(event):
    delivery = sign_delivery(event, secret=SECRET, timestamp=int(conf.clock()()))
    assert webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body)).status == 200
    return event.id


def dead(*types):
    """Events that have died, of these types."""

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
def test_requeue_one(settings_with_clock):
    one, other = dead("shop.opened", "shop.opened")
    assert run("envoyou_requeue", one) == "Requeued: 1.\n"
    assert webhooks.inbox.get(one).status == "received"
    assert webhooks.inbox.get(other).status == "dead"
    code, words = fails("envoyou_requeue", one)
    assert code == 1
    assert one in words


@pytest.mark.django_db
def test_requeue_several(settings_with_clock):
    shop, bank, second = dead("shop.opened", "bank.opened", "bank.opened")
    assert run_json("envoyou_requeue", "--type", "bank.opened", "--status", "dead", "--dry-run") == {
        "requeued": 0,
        "would_be_requeued": 2,
    }
    assert webhooks.inbox.stats().by_status["dead"] == 3
    assert run_json("envoyou_requeue", "--type", "bank.opened", "--tenant", "nobody") == {"requeued": 0}
    assert run_json("envoyou_requeue", "--type", "bank.opened") == {"requeued": 2}
    assert [webhooks.inbox.get(id).status for id in (shop, bank, second)] == ["dead", "received", "received"]
    assert run_json("envoyou_requeue", "--status", "dead") == {"requeued": 1}


@pytest.mark.django_db
def test_requeue_in_batches(settings_with_clock, monkeypatch):
    monkeypatch.setattr("envoyou_django.management.commands.envoyou_requeue.REQUEUE_BATCH", 2)
    dead(*["shop.opened"] * 5)
    assert run_json("envoyou_requeue", "--status", "dead") == {"requeued": 5}


@pytest.mark.django_db
def test_requeue_what_is_scrubbed_is_counted_by_nobody(settings_with_clock):
    dead("shop.opened")
    ProcessedEvent.objects.update(scrubbed_at=settings_with_clock.moment())
    assert run_json("envoyou_requeue", "--status", "dead", "--dry-run")["would_be_requeued"] == 0
    assert run_json("envoyou_requeue", "--status", "dead") == {"requeued": 0}


@pytest.mark.django_db
def test_requeue_needs_something_named():
    code, words = fails("envoyou_requeue")
    assert code == 2
    assert "name an event id, a status or a type" in words


# Prune


@pytest.mark.django_db
def test_prune_by_age(settings_with_clock):
    @webhooks.on("shop.*", name="works")
    def works(event): ...

    accept(sample_event("shop.opened"))
    accept(sample_event("nobody.cares"))
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
    assert run_json("envoyou_prune") == {"pruned": 0, "scrubbed": 1, "marks": 0}
    settings_with_clock.advance(60 * DAY)
    assert run("envoyou_prune") == "Deleted: 1 events, the payloads of 0, 0 marks.\n"


@pytest.mark.django_db
def test_prune_that_is_misunderstood():
    assert fails("envoyou_prune", "--status", "dead")[0] == 2
    with pytest.raises(CommandError, match="soon"):
        run("envoyou_prune", "--older-than", "soon")


# Stats


@pytest.mark.django_db
def test_stats_that_end_at_a_limit_say_so(settings_with_clock, monkeypatch):
    monkeypatch.setattr("envoyou_django.inbox.inbox.COUNTED", 1)
    for _ in range(2):
        accept(sample_event("nobody.cares"))
    webhooks.on("shop.never", name="never")(lambda event: None)
    webhooks.drain()
    assert run_json("envoyou_stats")["at_least"] == ["ignored"]
    lines = dict(line.split(maxsplit=1) for line in run("envoyou_stats").splitlines())
    assert (lines["ignored"], lines["total"]) == ("1+", "1+")
    assert run_json("envoyou_stats", "--exact")["by_status"]["ignored"] == 2


@pytest.mark.django_db
def test_stats(settings_with_clock):
    dead("shop.opened")
    accept(sample_event("nobody.cares"))
    webhooks.pause(type="nobody.*")
    settings_with_clock.advance(61)
    found = run_json("envoyou_stats")
    assert found["by_status"]["dead"] == found["by_status"]["received"] == 1
    assert (found["total"], found["overdue"], found["paused"]) == (2, 61.0, ["type:nobody.*"])
    assert found["at_least"] == []
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in run("envoyou_stats").splitlines()}
    assert (lines["dead"], lines["total"], lines["overdue"], lines["paused"]) == ("1", "2", "61 s", "type:nobody.*")
    assert lines["inbox"] == found["inbox"]
    assert str(connections["default"].settings_dict["NAME"]) in found["inbox"]
    assert run("envoyou_stats", "--max-overdue", "2m")
    code, words = fails("envoyou_stats", "--max-overdue", "1m")
    assert code == 1
    assert "61 s" in words


def test_a_bare_number_is_no_waiting_time():
    _, words = fails("envoyou_stats", "--max-overdue", "300")
    assert "300s" in words


@pytest.mark.django_db
def test_a_database_that_cannot_hold_the_inbox_is_named(monkeypatch):
    monkeypatch.setattr(type(connections["default"]), "vendor", "oracle")
    code, words = fails("envoyou_stats")
    assert code == 1
    assert "cannot hold the inbox" in words


def test_without_tables_it_says_what_to_run(tmp_path, django_db_blocker):
    with (
        django_db_blocker.unblock(),
        sqlite_database("contract", tmp_path / "empty.db", "contenttypes"),
        inbox_on("contract"),
    ):
        code, words = fails("envoyou_stats")
    assert code == 1
    assert "migrate --database contract" in words


# Send


@pytest.fixture
def served():
    with runserver(WSGIHandler()) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.django_db(transaction=True)
def test_send_to_the_projects_own_url(served):
    said = run("envoyou_send", "--server", served, "--type", "member.seen", "--data", '{"id": "m1"}')
    assert said.endswith('/webhooks/envoyou: 200 {"received": true}\n')
    (record,) = webhooks.inbox.list()
    assert (record.event.type, record.event.data.object) == ("member.seen", {"id": "m1"})
    found = run_json("envoyou_send", "--url", f"{served}/webhooks/envoyou/")
    assert (found["status"], json.loads(found["answer"])) == (200, {"received": True})
    assert webhooks.inbox.get(found["id"]).event.type == "user.created"
    webhooks.stop()


def tenants(webhook_id):
    return {"wh_acme": Tenant("acme", ["whsec_new", "whsec_old"])}.get(webhook_id)


@pytest.mark.django_db(transaction=True)
def test_send_with_the_secret_of_an_endpoint(served):
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": tenants, "HANDOFF": "manual"}):
        assert run_json("envoyou_send", "--server", served, "--webhook-id", "wh_acme")["status"] == 200
        code, words = fails("envoyou_send", "--server", served)
    assert code == 1
    assert "wh_1234567890" in words


@pytest.mark.django_db(transaction=True)
def test_send_what_is_refused(served):
    output = StringIO()
    with pytest.raises(CommandError, match="not accepted"):
        call_command("envoyou_send", "--url", f"{served}/nowhere", stdout=output, skip_checks=True)
    assert ": 404 " in output.getvalue()


def test_send_to_nobody():
    code, words = fails("envoyou_send", "--server", "http://127.0.0.1:9")
    assert code == 1
    assert "Is the server running?" in words


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--data", "{"], 2, "must be JSON"),
        (["--data", "[]"], 2, "must be a JSON object, got list"),
        (["--url", "ftp://127.0.0.1/"], 1, "no address"),
        (["--type", "\n"], 1, "type"),
    ],
)
def test_send_what_makes_no_sense(arguments, code, words):
    found, said = fails("envoyou_send", *arguments)
    assert found == code
    assert words in said


def test_send_without_a_url():
    nowhere = ModuleType("nowhere")
    nowhere.urlpatterns = []
    with override_settings(ROOT_URLCONF=nowhere):
        assert "give --url" in fails("envoyou_send")[1]


# On a terminal


@pytest.fixture(scope="module")
def with_dead_events(tmp_path_factory, django_db_blocker):
    project = Project(tmp_path_factory.mktemp("project"))
    with django_db_blocker.unblock(), sqlite_database("contract", project.database, "envoyou_django"):
        yield project


@pytest.mark.parametrize("has_rich", [True, False])
def test_what_takes_long_shows_how_far_it_is(with_dead_events, has_rich):
    project = with_dead_events
    with inbox_on("contract"):
        ids = [accept(sample_event()) for _ in range(3)]
        ProcessedEvent.objects.using("contract").update(status="dead", due_at=None)
    (project.folder / "without" / "rich").mkdir(parents=True, exist_ok=True)
    project.write("without/rich/__init__.py", "raise ModuleNotFoundError('rich')")
    first = "" if has_rich else str(project.folder / "without")
    output, shown = on_a_terminal(project, "envoyou_requeue", "--status", "dead", "--json", FIRST=first)
    assert json.loads(output) == {"requeued": len(ids)}
    assert "Requeueing" in shown
    assert ("100%" if has_rich else "3 of 3") in shown
    with inbox_on("contract"):
        empty("contract")


def on_a_terminal(project, *arguments, **environment):
    """What a command writes to its standard output, which is a pipe, and to a terminal as its standard error."""
    terminal, end = pty.openpty()
    contexts = project._contexts(environment)
    command = [sys.executable, "manage.py", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=end, text=True, **contexts)
    os.close(end)
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
