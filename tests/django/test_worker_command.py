"""`manage.py envoyou worker` as a real process, with real signals and changes of the code."""

from __future__ import annotations

import signal
import time

import psutil
import pytest

from envoyou_core import WebhookRequest
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_django import webhooks
from tests.django.conftest import SECRET
from tests.django.databases import empty, inbox_on, sqlite_database
from tests.django.project import HANDLERS, Project, wait_until

HANDLERS_WITH_HOOKS = (
    HANDLERS
    + """

import time
from pathlib import Path

from envoyou_django.models import ProcessedEvent


def write_log(line):
    with open("log", "a") as log:
        log.write(line + "\\n")


@webhooks.on_worker_start
def start():
    ProcessedEvent.objects.count()
    write_log("start")


@webhooks.on_worker_stop
def stop():
    write_log("stop")


@webhooks.on("api.*", atomic=False)
def blocks(event):
    write_log("blocking")
    while not Path("release").exists():
        time.sleep(0.02)
    write_log("released")
"""
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory, django_db_blocker):
    """A project whose database this process uses as well."""
    project = Project(tmp_path_factory.mktemp("project"), handlers=HANDLERS_WITH_HOOKS)
    with django_db_blocker.unblock(), sqlite_database("contract", project.database, "envoyou_django"):
        yield project


@pytest.fixture
def project(shared):
    with inbox_on("contract"):
        yield shared
        empty("contract")
    (shared.folder / "log").unlink(missing_ok=True)
    (shared.folder / "release").unlink(missing_ok=True)
    shared.write("shop/webhooks.py", HANDLERS_WITH_HOOKS)


def accept(type="user.created"):
    event = sample_event(type)
    delivery = sign_delivery(event, secret=SECRET)
    response = webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
    assert response.status == 200
    return event.id


def status(event_id):
    return webhooks.inbox.get(event_id).status


def save_until_noticed(project, code, is_noticed):
    """Save the code repeatedly, because Django's reloader misses changes made while it starts to watch."""

    def save_and_check():
        project.write("shop/webhooks.py", code)
        deadline = time.monotonic() + 3
        while not is_noticed() and time.monotonic() < deadline:
            time.sleep(0.05)
        return is_noticed()

    wait_until(save_and_check)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_handles_events_between_its_hooks_until_a_signal(project, number):
    first = accept()
    with project.running("envoyou", "worker") as worker:
        worker.wait_until(lambda: f"handled {first}" in project.log)
        second = accept()
        worker.wait_until(lambda: status(second) == "processed")
        worker.signal(number)
        assert worker.wait() == 0, worker.said
    assert project.log == ["start", f"handled {first}", f"handled {second}", "stop"]
    # The project has no LOGGING.
    assert "INFO envoyou" in worker.said
    assert "worker" in worker.said


def test_on_sigterm_it_finishes_running_attempts_and_claims_no_more(project):
    running = accept("api.key_expired")
    with project.running("envoyou", "worker") as worker:
        worker.wait_until(lambda: "blocking" in project.log)
        worker.signal(signal.SIGTERM)
        unclaimed = accept()
        (project.folder / "release").touch()
        assert worker.wait() == 0, worker.said
    assert (status(running), status(unclaimed)) == ("processed", "received")
    assert project.log == ["start", "blocking", "released", "stop"]


def test_it_keeps_no_unused_connection_open(project):
    """Neither the connection of its main thread, which reads the tables, nor that of its hooks."""
    with project.running("envoyou", "worker") as worker:
        event = accept()
        worker.wait_until(lambda: status(event) == "processed")
        of_worker = psutil.Process(worker.pid)
        worker.wait_until(lambda: str(project.database) not in [file.path for file in of_worker.open_files()])


@pytest.mark.slow
def test_with_reload_it_loads_changed_handlers_and_survives_an_error_in_the_code(project):
    with project.running("envoyou", "worker", "--reload") as worker:
        first = accept()
        worker.wait_until(lambda: f"handled {first}" in project.log)
        save_until_noticed(project, "a syntax error", lambda: "will be restarted when" in worker.said)
        assert "SyntaxError" in worker.said
        second = accept()
        project.write("shop/webhooks.py", HANDLERS_WITH_HOOKS.replace("handled", "again"))
        worker.wait_until(lambda: f"again {second}" in project.log)
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0, worker.said
    assert project.log == ["start", f"handled {first}", "stop", "start", f"again {second}", "stop"]


@pytest.mark.slow
def test_with_reload_it_finishes_running_attempts_on_sigterm(project):
    running = accept("api.key_expired")
    with project.running("envoyou", "worker", "--reload") as worker:
        worker.wait_until(lambda: "blocking" in project.log)
        worker.signal(signal.SIGTERM)
        worker.wait_until(lambda: (project.folder / "release").touch() or worker.has_ended)
        assert worker.wait() == 0, worker.said
    assert status(running) == "processed"
    assert project.log[-1] == "stop"


@pytest.mark.slow
def test_with_reload_it_starts_once_there_are_handlers(project):
    project.write("shop/webhooks.py", "")
    with project.running("envoyou", "worker", "--reload") as worker:
        worker.wait_until(lambda: "no handler is registered" in worker.said)
        project.write("shop/webhooks.py", HANDLERS_WITH_HOOKS)
        event = accept()
        worker.wait_until(lambda: f"handled {event}" in project.log)


def test_drain_handles_due_events_and_exits(project):
    events = [accept(), accept()]
    ran = project.run("envoyou", "worker", "--drain")
    assert (ran.returncode, ran.stdout) == (0, "Settled 2 events.\n"), ran.stderr
    assert [status(event) for event in events] == ["processed", "processed"]


def test_it_reports_in_one_line_why_it_cannot_start(project):
    project.write("shop/webhooks.py", "")
    ran = project.run("envoyou", "worker")
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].startswith("Error: cannot start the worker: ")
    assert "no handler is registered" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_without_its_tables_it_names_the_command_to_run(tmp_path):
    ran = Project(tmp_path).run("envoyou", "worker")
    assert ran.returncode == 1
    assert "manage.py migrate" in ran.stderr
    assert "Traceback" not in ran.stderr
