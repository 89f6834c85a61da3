"""`envoyou worker`: a real process, real signals."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from envoyou_core import WebhookRequest, Webhooks
from envoyou_core.inbox import Status
from envoyou_core.testing import sample_event, sign_delivery

SECRET = "whsec_test"

HOOKS = """
import os
import time
from pathlib import Path

from envoyou_core import Webhooks

webhooks = Webhooks(secret="whsec_test", inbox="sqlite:///inbox.db", lease=2)


def note(line):
    with open("log", "a") as log:
        log.write(line + "\\n")


@webhooks.on_worker_start
async def open_pool():
    note("start async")


@webhooks.on_worker_start
def open_other():
    note("start sync")


@webhooks.on_worker_stop
def close_pool():
    note("stop first registered")


@webhooks.on_worker_stop
async def close_other():
    note("stop last registered")


@webhooks.on("user.*")
def plain(event):
    note(f"plain {event.id}")


@webhooks.on("auth.*")
async def asynchronous(event):
    note(f"async {event.id}")


@webhooks.on("api.*")
def blocks(event):
    note("blocking")
    while not Path("release").exists():
        time.sleep(0.02)
    note("released")
"""


@pytest.fixture
def site(tmp_path):
    (tmp_path / "hooks.py").write_text(HOOKS)
    return tmp_path


@pytest.fixture
def webhooks(site):
    webhooks = Webhooks(secret=SECRET, inbox=f"sqlite:///{site}/inbox.db", handoff="manual")
    yield webhooks
    webhooks.inbox.close()


def accept(webhooks, type):
    delivery = sign_delivery(sample_event(type), secret=SECRET)
    response = webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
    assert response.status == 200
    return webhooks.inbox.list(limit=1)[0].event


@contextmanager
def worker(site, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [
            sys.executable,
            "-P",
            "-c",
            "from envoyou_core.cli import main; main()",
            "--app",
            *arguments[:1],
            "worker",
            *arguments[1:],
        ],
        cwd=site,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_until(condition: Callable[[], object], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


def log_of(site) -> list[str]:
    return (site / "log").read_text().splitlines() if (site / "log").exists() else []


def test_it_works_until_sigterm_between_its_hooks(site, webhooks):
    before = accept(webhooks, "user.created")
    with worker(site, "hooks") as process:
        wait_until(lambda: f"plain {before.id}" in log_of(site))
        meanwhile = accept(webhooks, "auth.login")
        wait_until(lambda: webhooks.inbox.get(meanwhile.id).status is Status.PROCESSED)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert log_of(site) == [
        "start async",
        "start sync",
        f"plain {before.id}",
        f"async {meanwhile.id}",
        "stop last registered",
        "stop first registered",
    ]


def test_sigterm_finishes_running_attempts_and_claims_nothing_more(site, webhooks):
    begun = accept(webhooks, "api.key_expired")
    with worker(site, "hooks:webhooks") as process:
        wait_until(lambda: "blocking" in log_of(site))
        process.send_signal(signal.SIGTERM)
        left = accept(webhooks, "user.created")
        (site / "release").touch()
        assert process.wait(20) == 0
    assert webhooks.inbox.get(begun.id).status is Status.PROCESSED
    assert webhooks.inbox.get(left.id).status is Status.RECEIVED


def test_event_unfinished_at_shutdown_is_claimed_by_the_next_worker(site, webhooks):
    stuck = accept(webhooks, "api.key_expired")
    with worker(site, "hooks", "--shutdown-timeout", "0.1") as process:
        wait_until(lambda: "blocking" in log_of(site))
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert webhooks.inbox.get(stuck.id).status is Status.PROCESSING
    (site / "release").touch()
    with worker(site, "hooks"):
        wait_until(lambda: webhooks.inbox.get(stuck.id).status is Status.PROCESSED)
    record = webhooks.inbox.get(stuck.id)
    assert (record.attempts, record.crashes) == (1, 1)


def test_a_second_signal_ends_it_at_once(site, webhooks):
    accept(webhooks, "api.key_expired")
    with worker(site, "hooks", "--shutdown-timeout", "600") as process:
        wait_until(lambda: "blocking" in log_of(site))
        process.send_signal(signal.SIGTERM)
        # The second signal has no effect if it arrives before the first one was handled.
        wait_until(lambda: process.poll() is not None or process.send_signal(signal.SIGTERM))
        assert process.returncode == -signal.SIGTERM


def test_in_another_thread_it_works_until_it_is_stopped():
    """As under a reloader, which runs in the main thread itself."""
    webhooks = Webhooks(secret=SECRET, inbox="memory:", handoff="manual")
    called = []
    webhooks.on_worker_start(lambda: called.append("start"))
    webhooks.on_worker_stop(lambda: called.append("stop"))
    webhooks.on("*")(lambda event: called.append(event.id))
    worker = threading.Thread(target=webhooks.run_worker)
    worker.start()
    event = accept(webhooks, "user.created")
    wait_until(lambda: event.id in called)
    webhooks.stop()
    worker.join(20)
    assert not worker.is_alive()
    assert called == ["start", event.id, "stop"]


@pytest.mark.parametrize(
    ("place", "source", "words"),
    [
        ("nowhere", "", "there is no module 'nowhere'"),
        ("hooks:nothing", "", "nothing"),
        ("hooks:webhooks", "webhooks = 1", "expected a Webhooks object at 'hooks:webhooks', got int"),
        (
            "hooks:webhooks",
            "from envoyou_core import Webhooks; webhooks = Webhooks(secret='s', inbox='memory:')",
            "no handler is registered",
        ),
    ],
)
def test_it_says_why_it_cannot_start(site, place, source, words):
    (site / "hooks.py").write_text(source)
    with worker(site, place) as process:
        assert process.wait(20) == 1
        assert words in " ".join(process.stderr.read().split())


OWN_LOG = "import logging\nlogging.basicConfig(level=logging.ERROR, format='own %(message)s')\n"


@pytest.mark.parametrize(
    ("source", "options", "told"),
    [
        (HOOKS, [], " INFO envoyou: processed {id} (user.created) after attempt 1"),
        (HOOKS, ["--log-level", "warning"], None),
        (OWN_LOG + HOOKS, [], None),
        (OWN_LOG + HOOKS, ["--log-level", "info"], "own processed {id} (user.created) after attempt 1"),
    ],
)
def test_log_level_option_sets_the_level(site, webhooks, source, options, told):
    (site / "hooks.py").write_text(source)
    event = accept(webhooks, "user.created")
    with worker(site, "hooks", *options) as process:
        wait_until(lambda: webhooks.inbox.get(event.id).status is Status.PROCESSED)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        said = process.stderr.read()
    assert (event.id in said) == (told is not None)
    assert told is None or told.format(id=event.id) in said


def test_unknown_log_level_is_refused(site):
    with worker(site, "hooks", "--log-level", "loud") as process:
        assert process.wait(20) == 2
        assert "'loud'" in process.stderr.read()


@pytest.mark.parametrize("error", ["ValueError", "RuntimeError"])
def test_failure_is_printed_without_the_usage(site, error):
    failing = f"""
@webhooks.on_worker_start
def open_pool_that_fails():
    raise {error}("no pool at postgresql://app:hunter2@db")
"""
    (site / "hooks.py").write_text(HOOKS + failing)
    (site / "inbox.db").touch()
    with worker(site, "hooks") as process:
        assert process.wait(20) == 1
        said = process.stderr.read()
    assert "ERROR envoyou: worker failed\n  Traceback (most recent call last):" in said
    assert "in open_pool_that_fails" in said
    assert f"Error: the worker failed: {error}: no pool at postgresql://app:[redacted]@db" in said
    assert "hunter2" not in said
    assert "Usage" not in said
