"""`manage.py envoyou_worker`: a real process, real signals, a real change of the code."""

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


def say(line):
    with open("log", "a") as log:
        log.write(line + "\\n")


@webhooks.on_worker_start
def begin():
    ProcessedEvent.objects.count()
    say("start")


@webhooks.on_worker_stop
def end():
    say("stop")


@webhooks.on("api.*", atomic=False)
def blocks(event):
    say("blocking")
    while not Path("release").exists():
        time.sleep(0.02)
    say("released")
"""
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory, django_db_blocker):
    """A project whose database this process can use, too."""
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
    answer = webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
    assert answer.status == 200
    return event.id


def status(event_id):
    return webhooks.inbox.get(event_id).status


def save_until_noticed(project, code, noticed):
    """Save it again and again: Django's reloader does not notice what is changed while it begins to watch."""

    def saved_and_noticed():
        project.write("shop/webhooks.py", code)
        deadline = time.monotonic() + 3
        while not noticed() and time.monotonic() < deadline:
            time.sleep(0.05)
        return noticed()

    wait_until(saved_and_noticed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_works_between_its_hooks_until_a_signal(project, number):
    before = accept()
    with project.running("envoyou_worker") as worker:
        worker.wait_until(lambda: f"handled {before}" in project.log)
        meanwhile = accept()
        worker.wait_until(lambda: status(meanwhile) == "processed")
        worker.signal(number)
        assert worker.wait() == 0, worker.said
    assert project.log == ["start", f"handled {before}", f"handled {meanwhile}", "stop"]
    # The project says nothing about logging.
    assert "INFO envoyou" in worker.said
    assert "worker" in worker.said


def test_sigterm_lets_it_finish_what_was_begun_and_take_nothing_more(project):
    begun = accept("api.key_expired")
    with project.running("envoyou_worker") as worker:
        worker.wait_until(lambda: "blocking" in project.log)
        worker.signal(signal.SIGTERM)
        left = accept()
        (project.folder / "release").touch()
        assert worker.wait() == 0, worker.said
    assert (status(begun), status(left)) == ("processed", "received")
    assert project.log == ["start", "blocking", "released", "stop"]


def test_it_keeps_no_connection_open_that_nobody_uses(project):
    """Neither that of its first thread, which looks at the tables, nor that of its hooks."""
    with project.running("envoyou_worker") as worker:
        event = accept()
        worker.wait_until(lambda: status(event) == "processed")
        of_worker = psutil.Process(worker.pid)
        worker.wait_until(lambda: str(project.database) not in [file.path for file in of_worker.open_files()])


@pytest.mark.slow
def test_a_changed_handler_is_taken_up_and_a_mistake_is_waited_out(project):
    with project.running("envoyou_worker", "--reload") as worker:
        first = accept()
        worker.wait_until(lambda: f"handled {first}" in project.log)
        save_until_noticed(project, "this is no Python", lambda: "will be restarted when" in worker.said)
        assert "SyntaxError" in worker.said
        second = accept()
        project.write("shop/webhooks.py", HANDLERS_WITH_HOOKS.replace("handled", "anew"))
        worker.wait_until(lambda: f"anew {second}" in project.log)
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0, worker.said
    assert project.log == ["start", f"handled {first}", "stop", "start", f"anew {second}", "stop"]


@pytest.mark.slow
def test_a_reloading_one_finishes_what_was_begun_when_it_is_told_to_end(project):
    begun = accept("api.key_expired")
    with project.running("envoyou_worker", "--reload") as worker:
        worker.wait_until(lambda: "blocking" in project.log)
        worker.signal(signal.SIGTERM)
        worker.wait_until(lambda: (project.folder / "release").touch() or worker.has_ended)
        assert worker.wait() == 0, worker.said
    assert status(begun) == "processed"
    assert project.log[-1] == "stop"


@pytest.mark.slow
def test_a_reloading_one_without_handlers_says_so_and_begins_when_there_are_some(project):
    project.write("shop/webhooks.py", "")
    with project.running("envoyou_worker", "--reload") as worker:
        worker.wait_until(lambda: "no handlers" in worker.said)
        project.write("shop/webhooks.py", HANDLERS_WITH_HOOKS)
        event = accept()
        worker.wait_until(lambda: f"handled {event}" in project.log)


def test_drain_does_what_is_due_and_ends(project):
    events = [accept(), accept()]
    ran = project.run("envoyou_worker", "--drain")
    assert (ran.returncode, ran.stdout) == (0, "Settled 2 events.\n"), ran.stderr
    assert [status(event) for event in events] == ["processed", "processed"]


def test_it_says_in_a_line_why_it_cannot_start(project):
    project.write("shop/webhooks.py", "")
    ran = project.run("envoyou_worker")
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].startswith("CommandError: The worker cannot start: ")
    assert "no handlers" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_without_its_tables_it_says_what_to_run(tmp_path):
    ran = Project(tmp_path).run("envoyou_worker")
    assert ran.returncode == 1
    assert "manage.py migrate" in ran.stderr
    assert "Traceback" not in ran.stderr
