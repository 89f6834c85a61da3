"""The health probes: what they answer, how often they ask the database, and how long they wait for it."""

import asyncio
import importlib
import json
import logging
import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from typer.testing import CliRunner

from envoyou_core import ConfigurationError, Webhooks
from envoyou_core.asgi import HealthEndpoint
from envoyou_core.asgi import health_app as asgi_health_app
from envoyou_core.cli.command_line import app
from envoyou_core.health import reports
from envoyou_core.health.probes import Probes
from envoyou_core.health.reports import StoreState
from envoyou_core.health.server import serve_probes
from envoyou_core.health.shared_check import SharedCheck
from envoyou_core.inbox import open_inbox
from envoyou_core.inbox.processes import ProcessKind, _this_process
from envoyou_core.spool.spool import Spool
from envoyou_core.steps import arun, run
from envoyou_core.wsgi import health_app as wsgi_health_app
from tests.core.web_servers import serving
from tests.inbox.acts import add

SECRET = "whsec_of_the_health_tests_1234"
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
UNREACHABLE = "postgresql+psycopg://shop:hunter2@127.0.0.1:9/shop"


@pytest.fixture
def webhooks(sqlite_url):
    webhooks = Webhooks(secret=SECRET, inbox=sqlite_url, handoff="manual")
    yield webhooks
    webhooks.inbox.close()


def beat(webhooks, **changes):
    webhooks.inbox.beat(replace(webhooks._presence.process, kind=ProcessKind.WORKER, **changes))


# What a probe answers


@pytest.mark.parametrize(
    ("inbox", "spool", "is_ok"),
    [
        (StoreState.OK, StoreState.NONE, True),
        (StoreState.OK, StoreState.NOT_CHECKED, True),
        (StoreState.UNAVAILABLE, StoreState.OK, True),
        (StoreState.UNAVAILABLE, StoreState.UNAVAILABLE, False),
        (StoreState.UNAVAILABLE, StoreState.NONE, False),
    ],
)
def test_a_process_is_ready_if_the_inbox_or_the_spool_can_be_written(inbox, spool, is_ok):
    response = reports.ready(inbox, spool).response()
    assert response.status == (200 if is_ok else 503)
    assert json.loads(response.body) == {
        "status": "ok" if is_ok else "unavailable",
        "inbox": inbox.value,
        "spool": spool.value,
    }
    assert ("Cache-Control", "no-store") in response.headers


def process(kind, age, id="p"):
    return replace(_this_process(NOW.timestamp()), kind=kind, seen_at=NOW - timedelta(seconds=age), id=id)


@pytest.mark.parametrize(
    ("processes", "is_ok"),
    [
        ([], False),
        ([process(ProcessKind.WORKER, 59)], True),
        ([process(ProcessKind.WORKER, 61)], False),
        ([process(ProcessKind.STOPPED, 1), process(ProcessKind.ACCEPTS, 1)], False),
        ([process(ProcessKind.DRAIN, 80_000)], True),
        ([process(ProcessKind.DRAIN, 90_000)], False),
    ],
)
def test_a_worker_is_alive_for_six_beats_and_a_cron_job_for_a_day(processes, is_ok):
    assert reports.worker(processes, 0.0, NOW).is_ok == is_ok


def test_only_the_worker_of_one_process_may_count():
    processes = [process(ProcessKind.WORKER, 3, "ours"), process(ProcessKind.WORKER, 1, "another")]
    assert reports.worker(processes, 0.0, NOW, only="ours").details["last_beat_seconds"] == 3.0
    assert reports.worker(processes, 0.0, NOW, only="new").details == {"workers": 0, "oldest_waiting_seconds": 0.0}


@pytest.mark.parametrize(("overdue", "is_ok"), [(300.0, True), (300.1, False)])
def test_an_event_that_waits_for_long_is_unhealthy(overdue, is_ok):
    assert reports.worker([process(ProcessKind.WORKER, 1)], overdue, NOW).is_ok == is_ok


# The check that probes share


@pytest.fixture
def gate():
    """Lets a check end; whatever a test leaves is let through."""
    gate = threading.Event()
    yield gate
    gate.set()


def test_probes_share_one_check_and_its_result_is_used_again_for_a_while():
    calls = []
    kept = SharedCheck("kept", lambda: calls.append(1), time_limit=20, kept_for=1000)
    for _ in range(3):
        run(kept.result())
    assert len(calls) == 1
    fresh = SharedCheck("fresh", lambda: calls.append(1), time_limit=20, kept_for=0)
    for _ in range(3):
        run(fresh.result())
    assert len(calls) == 4


def test_a_check_that_hangs_runs_once_and_no_probe_waits_beyond_its_limit(gate):
    calls = []
    hanging = SharedCheck("hanging", lambda: (calls.append(1), gate.wait(60)), time_limit=0.05, kept_for=0)
    with pytest.raises(TimeoutError):
        run(hanging.result())
    # Its limit is over: this one does not wait at all, and neither does one on an event loop.
    with pytest.raises(TimeoutError):
        asyncio.run(arun(hanging.result()))
    assert len(calls) == 1


def test_a_failure_is_reported_to_every_probe_and_logged_once(caplog):
    def fail():
        raise OSError("no database")

    failing = SharedCheck("envoyou-health-inbox", fail, time_limit=20, kept_for=0)
    with caplog.at_level(logging.WARNING, "envoyou"):
        for _ in range(3):
            with pytest.raises(OSError, match="no database"):
                run(failing.result())
    assert [record.getMessage() for record in caplog.records] == ["envoyou-health-inbox failed: OSError: no database"]


def test_the_thread_has_what_the_framework_needs_around_it():
    entered = []
    check = SharedCheck(
        "check",
        lambda: entered.append("check"),
        time_limit=20,
        kept_for=0,
        in_thread=lambda function: (entered.append("in"), function(), entered.append("out")),
    )
    run(check.result())
    assert entered[:2] == ["in", "check"]


def test_a_forked_child_begins_a_check_of_its_own(gate, monkeypatch):
    calls = []
    check = SharedCheck("check", lambda: (calls.append(1), gate.wait(60)), time_limit=0.05, kept_for=1000)
    with pytest.raises(TimeoutError):
        run(check.result())
    # The thread of the parent does not exist in the child.
    monkeypatch.setattr("envoyou_core.health.shared_check.os.getpid", lambda: -1)
    gate.set()
    run(check.result())
    assert len(calls) == 2


def test_a_database_of_the_calling_thread_is_checked_there():
    threads = []
    check = SharedCheck(
        "check",
        lambda: threads.append(threading.current_thread()),
        time_limit=20,
        kept_for=1000,
        runs_here=lambda: True,
    )
    run(check.result())
    assert threads == [threading.current_thread()]


# The probes of an application


def test_live_asks_no_database(webhooks, tmp_path):
    assert webhooks.probes.check("live").response().body == b'{"status": "ok"}'
    assert not (tmp_path / "inbox.db").exists()


def test_ready_writes_and_leaves_nothing(webhooks):
    assert webhooks.probes.check("ready").document() == {"status": "ok", "inbox": "ok", "spool": "none"}
    assert webhooks.inbox.list() == []


def test_a_backlog_does_not_take_a_process_out_of_rotation(webhooks):
    webhooks.inbox._clock = lambda: datetime.now(UTC).timestamp() - 1000
    add(webhooks.inbox)
    webhooks.inbox._clock = lambda: datetime.now(UTC).timestamp()
    beat(webhooks)
    assert webhooks.probes.check("ready").is_ok
    assert not webhooks.probes.check("worker").is_ok
    assert webhooks.probes.check("worker", max_overdue=2000).is_ok


def test_a_spool_keeps_a_process_ready_while_the_inbox_is_down(tmp_path):
    webhooks = Webhooks(secret=SECRET, inbox=UNREACHABLE, spool=f"sqlite:///{tmp_path}/spool.db", handoff="manual")
    found = webhooks.probes.check("ready")
    assert found.document() == {"status": "ok", "inbox": "unavailable", "spool": "ok"}
    assert webhooks.probes.check("worker").document() == {"status": "unavailable", "inbox": "unavailable"}
    webhooks.spool.close()
    webhooks.inbox.close()


def test_a_process_that_can_store_nothing_is_not_ready_and_shows_nothing_secret(tmp_path):
    (tmp_path / "spool.db").write_text("not a database" * 100)
    webhooks = Webhooks(secret=SECRET, inbox=UNREACHABLE, spool=f"sqlite:///{tmp_path}/spool.db", handoff="manual")
    response = webhooks.probes.respond("GET", "ready")
    assert response.status == 503
    assert response.body == b'{"status": "unavailable", "inbox": "unavailable", "spool": "unavailable"}'
    webhooks.inbox.close()


def test_the_spool_is_not_asked_while_the_inbox_is_up(webhooks, tmp_path):
    with closing(Spool(f"sqlite:///{tmp_path}/spool.db")) as spool:
        probes = Probes(
            webhooks.inbox, spool, in_thread=lambda function: function(), own_id=lambda: "", clock=lambda: 0.0
        )
        assert probes.check("ready").details == {"inbox": "ok", "spool": "not_checked"}
        assert not (tmp_path / "spool.db").exists()


def test_an_inbox_in_memory_is_ready():
    assert Webhooks(secret=SECRET, inbox="memory:", handoff="manual").probes.check("ready").is_ok


def test_the_worker_of_this_process_may_be_the_only_one_that_counts(webhooks):
    beat(webhooks, id="another")
    assert webhooks.probes.check("worker").is_ok
    # The result of a second before would be used again.
    beat(webhooks)
    fresh = Webhooks(secret=SECRET, inbox=webhooks.inbox, handoff="manual")
    assert not fresh.probes.check("worker", own_worker=True).is_ok
    assert fresh.probes.check("worker").details["workers"] == 2


# Over HTTP


def fetch(url):
    try:
        with urlopen(url, timeout=20) as response:
            return response.status, json.loads(response.read())
    except HTTPError as response:
        with response:
            return response.code, json.loads(response.read())


@pytest.fixture(params=["wsgi", "port"])
def base_url(request, webhooks):
    if request.param == "wsgi":
        with serving(wsgi_health_app(webhooks)) as port:
            yield f"http://127.0.0.1:{port}"
    else:
        with serve_probes(webhooks.probes, "127.0.0.1", 0) as port:
            yield f"http://127.0.0.1:{port}"


def test_the_answers_over_http(base_url, webhooks):
    beat(webhooks)
    assert fetch(f"{base_url}/live") == (200, {"status": "ok"})
    assert fetch(f"{base_url}/ready/?verbose=1")[0] == 200
    status, document = fetch(f"{base_url}/worker")
    assert (status, document["workers"]) == (200, 1)
    assert fetch(f"{base_url}/secrets") == (404, {"error": "not_found"})
    connection = HTTPConnection(base_url.removeprefix("http://"), timeout=20)
    for method, status in (("HEAD", 200), ("POST", 405)):
        connection.request(method, "/live")
        response = connection.getresponse()
        assert (response.status, bool(response.read())) == (status, method == "POST")
        connection.close()


async def call(application, path, method="GET"):
    messages = []

    async def send(message):
        messages.append(message)

    await application({"type": "http", "path": path, "method": method}, None, send)
    return messages[0]["status"], messages[1]["body"]


async def test_the_answers_over_asgi(webhooks):
    application = asgi_health_app(webhooks)
    assert await call(application, "/health/live") == (200, b'{"status": "ok"}')
    assert await call(application, "/ready", "HEAD") == (200, b"")
    assert (await call(application, "/worker"))[0] == 503
    assert (await call(application, "/ready", "POST"))[0] == 405
    assert (await call(application, "/"))[0] == 404
    assert (await call(HealthEndpoint(webhooks, "live"), "/anywhere"))[0] == 200
    with pytest.raises(ValueError, match="alive"):
        HealthEndpoint(webhooks, "alive")


def test_a_port_that_is_taken_is_an_error(webhooks):
    with serve_probes(webhooks.probes, "127.0.0.1", 0) as port:
        again = serve_probes(webhooks.probes, "127.0.0.1", port)
        with pytest.raises(ConfigurationError, match=f"health port 127.0.0.1:{port} cannot be used: Address already"):
            again.__enter__()
    assert [thread for thread in threading.enumerate() if thread.name == "envoyou-health-port"] == []


# Commands


@pytest.fixture
def hooks(tmp_path, monkeypatch):
    name = f"hooks_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "from envoyou_core import Webhooks\n"
        f"webhooks = Webhooks(secret={SECRET!r}, inbox='sqlite:///{tmp_path}/inbox.db')\n"
        "webhooks.on('*')(print)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with closing(open_inbox(f"sqlite:///{tmp_path}/inbox.db")) as inbox:
        inbox.open()
    yield name
    importlib.import_module(name).webhooks.inbox.close()


def test_the_command(hooks):
    def health(*arguments):
        result = CliRunner().invoke(app, ["--app", hooks, "health", *arguments])
        return result.exit_code, result.stdout.strip()

    assert health("live") == (0, "ok")
    assert health("ready") == (0, "ok, inbox ok, spool none")
    assert health("worker") == (1, "unavailable, workers 0, oldest waiting seconds 0.0")
    code, text = health("worker", "--json", "--max-overdue", "1h")
    assert (code, json.loads(text)["workers"]) == (1, 0)
    assert health("alive")[0] == 2


def test_a_worker_answers_probes_at_its_port_while_it_runs(hooks, until, caplog):
    webhooks = importlib.import_module(hooks).webhooks
    ended = []

    def work():
        result = CliRunner().invoke(app, ["--app", hooks, "worker", "--health-port", "0", "--health-host", "127.0.0.1"])
        ended.append(result)

    def port():
        return next((record.args["port"] for record in caplog.records if "health probes" in record.msg), None)

    with caplog.at_level(logging.INFO, "envoyou"):
        thread = threading.Thread(target=work)
        thread.start()
        until(port)
        try:
            until(lambda: fetch(f"http://127.0.0.1:{port()}/worker")[0] == 200)
        finally:
            until(lambda: webhooks._own_worker is not None)
            webhooks.stop()
            thread.join()
    assert ended[0].exit_code == 0, ended[0].output
    with pytest.raises(OSError, match="refused"):
        fetch(f"http://127.0.0.1:{port()}/live")


def test_a_worker_that_drains_has_no_port(hooks):
    result = CliRunner().invoke(app, ["--app", hooks, "worker", "--drain", "--health-port", "0"])
    assert result.exit_code == 2
