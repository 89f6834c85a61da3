"""`HANDOFF` to a task queue of the project, whose worker is a real process."""

from __future__ import annotations

import signal
import socket
import sqlite3
from contextlib import closing
from importlib.util import find_spec

import pytest

from envoyou_core.testing import sample_event
from tests.django.project import Project
from tests.documentation.pages import Page

pytestmark = pytest.mark.slow

HANDLERS = """
import os
import time
from pathlib import Path

from envoyou_django import webhooks


def write_log(line):
    with open("log", "a") as log:
        log.write(line + "\\n")


@webhooks.on("user.*")
def note(event):
    write_log(f"{event.id} {os.getpid()}")


@webhooks.on("auth.*")
def fails_at_first(event, attempt):
    if attempt == 1:
        raise ConnectionError("not yet")
    write_log(f"{event.id} attempt {attempt}")


@webhooks.on("api.*", atomic=False)
def hangs_at_first(event):
    if not Path("started").exists():
        Path("started").touch()
        time.sleep(600)
    write_log(f"{event.id} {os.getpid()}")
"""

SHORT_INTERVALS = """
from envoyou_core.worker import announcer, due_timer

due_timer.INTERVALS = due_timer.Intervals(full=1.0, overdue=1.0)
announcer.MAX_CALL = 1.0
"""

PAGE = Page("docs/task-queues.md")

SHORT_LEASE = """
ENVOYOU["LEASE"] = 2
"""

CELERY = """
import os

ENVOYOU["HANDOFF"] = "celery"
CELERY_BROKER_URL = os.environ["BROKER"]
CELERY_BROKER_TRANSPORT_OPTIONS = {"global_keyprefix": os.environ["KEY_PREFIX"]}
"""

CELERY_APP = """
import os

from celery import Celery

os.environ["DJANGO_SETTINGS_MODULE"] = "site_settings"
app = Celery("site")
app.config_from_object("django.conf:settings", namespace="CELERY")
"""


def handled_by(project, event):
    """The process that has handled the event, or `None`."""
    lines = [line.split(maxsplit=1) for line in project.log]
    return next((int(pid) for event_id, pid in lines if event_id == event.id), None)


def deliver(server, type="user.created"):
    event = sample_event(type)
    assert server.deliver(event) == (200, '{"received": true}')
    return event


# Django's Tasks

BEFORE_DJANGO_6 = "" if find_spec("django.tasks") else 'INSTALLED_APPS += ["django_tasks"]'


@pytest.fixture(scope="module")
def tasks_project(tmp_path_factory):
    (snippet,) = [block.code for block in PAGE.blocks("Django") if block.file == "mysite/settings.py"]
    settings = snippet.replace("ENVOYOU = ", "ENVOYOU |= ") + BEFORE_DJANGO_6 + SHORT_LEASE + SHORT_INTERVALS
    project = Project(tmp_path_factory.mktemp("tasks"), settings=settings, handlers=HANDLERS)
    assert project.run("migrate").returncode == 0
    return project


def db_worker(project):
    return project.running("db_worker", "--interval", "0.1", "--no-startup-delay")


def test_the_worker_of_django_tasks_handles_events(tasks_project):
    with tasks_project.serving() as server, db_worker(tasks_project) as worker:
        event, retried = deliver(server), deliver(server, "auth.login")
        worker.wait_until(lambda: handled_by(tasks_project, event) == worker.pid)
        worker.wait_until(lambda: f"{retried.id} attempt 2" in tasks_project.log)
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
    with closing(sqlite3.connect(tasks_project.database)) as database:
        tasks = database.execute("SELECT run_after FROM django_tasks_database_dbtaskresult").fetchall()
    # One for each event, one at the start of the server, and a delayed one for the retry.
    assert len(tasks) >= 4
    assert any(not run_after.startswith("9999") for (run_after,) in tasks)


def test_a_lost_task_is_enqueued_again(tasks_project):
    with tasks_project.serving() as server:
        event = deliver(server)
        delete = "from django_tasks_db.models import DBTaskResult; DBTaskResult.objects.all().delete()"
        assert tasks_project.run("shell", "-c", delete).returncode == 0
        with db_worker(tasks_project) as worker:
            worker.wait_until(lambda: handled_by(tasks_project, event) == worker.pid)


def test_events_of_a_killed_worker_are_handled_by_another(tasks_project):
    with tasks_project.serving() as server:
        with db_worker(tasks_project) as killed:
            event = deliver(server, "api.key_expired")
            killed.wait_until(lambda: (tasks_project.folder / "started").exists())
            killed.signal(signal.SIGKILL)
            killed.wait()
        with db_worker(tasks_project) as other:
            other.wait_until(lambda: handled_by(tasks_project, event) == other.pid)


# Celery


@pytest.fixture(scope="module")
def celery_project(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("celery"), settings=CELERY + SHORT_INTERVALS, handlers=HANDLERS)
    project.write("site_celery.py", CELERY_APP)
    project.write("shop/__init__.py", "from site_celery import app as app")
    assert project.run("migrate", BROKER="", KEY_PREFIX="").returncode == 0
    return project


def celery_worker(project, **environment):
    command = ["-m", "celery", "-A", "site_celery", "worker", "--concurrency=1", "--loglevel=info"]
    return project.running_python(*command, **environment)


@pytest.mark.service
def test_the_worker_of_celery_handles_events(celery_project, redis_url, redis_prefix):
    environment = {"BROKER": redis_url, "KEY_PREFIX": redis_prefix}
    with celery_project.serving(**environment) as server, celery_worker(celery_project, **environment) as worker:
        event, retried = deliver(server), deliver(server, "auth.login")
        worker.wait_until(lambda: handled_by(celery_project, event))
        assert handled_by(celery_project, event) not in {server.process.pid, None}
        worker.wait_until(lambda: f"{retried.id} attempt 2" in celery_project.log)
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0, worker.said
    assert "envoyou.work_off" in worker.said


def test_a_broker_that_never_answers_delays_no_response(celery_project):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {"BROKER": f"redis://127.0.0.1:{silent.getsockname()[1]}/0", "KEY_PREFIX": ""}
        with celery_project.serving(**environment) as server:
            events = [deliver(server) for _ in range(3)]
            message = "the handoff has not returned"
            server.process.wait_until(lambda: message in server.process.said)
            assert not any(handled_by(celery_project, event) for event in events)
            assert celery_project.run("envoyou", "worker", "--drain", **environment).returncode == 0
    assert all(handled_by(celery_project, event) for event in events)


def test_without_celery_a_command_names_the_package_to_install(celery_project):
    (celery_project.folder / "without" / "celery").mkdir(parents=True)
    celery_project.write("without/celery/__init__.py", "raise ModuleNotFoundError('celery')")
    celery_project.write("shop/__init__.py", "")
    ran = celery_project.run("check", BROKER="", KEY_PREFIX="", FIRST=str(celery_project.folder / "without"))
    assert ran.returncode == 1
    assert "envoyou.E003" in ran.stderr
    assert "envoyou-webhooks[celery]" in ran.stderr
    assert "Traceback" not in ran.stderr
