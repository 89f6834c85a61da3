"""Tests of the benchmarks with little work: results are printed only for work that was done."""

import json
import os
import re
import socketserver
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from sqlalchemy import create_engine

from benchmarks import admin_growth, drain, endpoints, growth, processes, verification
from benchmarks.databases import databases
from benchmarks.effects import effects_database
from benchmarks.ledger import Ledger
from benchmarks.load import send_all
from benchmarks.measuring import Comparison, Limit, MeasurementError, Ratio, Round, Run, table
from benchmarks.results import Result, summary, write_json
from envoyou_core.inbox import SqlInbox
from tests.services import key_prefix

ROOT = Path(__file__).parents[2]
EVENTS = 20
RUN = Run(events=EVENTS, rounds=1, requests=4, redis=None, postgres=None)

CANDIDATES = {
    "acknowledgements": ["single commits", "group commit"],
    "django": ["create()", "group commit"] * 3,
    "claims": ["settled one by one", "settled together"] * 2,
    "transactions": [
        "loop with the driver",
        "loop with SQLAlchemy",
        "loop with the inbox",
        "loop with the inbox",
        "envoyou worker",
        "envoyou worker",
    ]
    * 2,
    "drain": [
        "envoyou worker, SQLite",
        "envoyou worker, SQLite, one log line",
        "envoyou worker, SQLite, async handler",
        "envoyou worker, PostgreSQL",
        "envoyou worker, PostgreSQL, one log line",
        "envoyou worker, PostgreSQL, async handler",
        "Celery",
        "Dramatiq",
        "Dramatiq",
    ],
    "unsigned": ["text", "nested lists", "short floats", "members", "objects"] * 3
    + ["alone", "with unsigned requests", "with unsigned requests, fully parsed"] * 2,
    "verify": [
        "floor, payload left raw",
        "floor, fully decoded",
        "envoyou_core",
        "the guide's sample",
        "stripe",
        "svix",
        "standardwebhooks",
        "slack_sdk, no parsing",
        "slack_sdk, json.loads",
        "gidgethub",
    ]
    * 3,
    "import": ["python -c pass", "import msgspec", "import envoyou_core", "from envoyou_core import Webhooks"],
    "memory": ["growth after the first tenth"],
    "growth": ["100 rows", "5000 rows"] * 6 + ["100 rows", "5000 rows", "25000 rows"] * 6,
}
DONE = {"unsigned": {2, EVENTS}, "verify": {5 * EVENTS}, "import": {2}, "memory": {50 * EVENTS}}
"""How much work is done, if it is not `EVENTS`: expensive work is limited."""

RATIOS = {"acknowledgements": 1, "django": 3, "claims": 2, "transactions": 10, "drain": 8, "unsigned": 7}
RATIOS |= {"verify": 21, "import": 3, "memory": 1, "growth": 18}

FIGURE = r"-?\d[\d.e-]*"
CANDIDATE = re.compile(
    rf"^  (?!= )(?P<name>\S.*?) +(?P<median>{FIGURE}) +(?P<lowest>{FIGURE}) +(?P<highest>{FIGURE}) +(?P<done>\d+)"
    rf"(?: +{FIGURE})*$",
    re.M,
)
RATIO = re.compile(r"^  = (?P<label>\S.*?) +(?P<ratio>-?\d+\.\d\d)", re.M)


def benchmarks(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@pytest.mark.long
@pytest.mark.parametrize("name", CANDIDATES)
def test_results_are_printed(name, postgres_server, redis_url, tmp_path):
    finished = benchmarks(
        *(name, "--events", str(EVENTS), "--rounds", "1", "--requests", "4", "--output", str(tmp_path)),
        ENVOYOU_TEST_POSTGRES_URL=postgres_server,
        ENVOYOU_TEST_REDIS_URL=redis_url,
        ENVOYOU_TEST_EMBEDDED="",
    )
    assert finished.returncode == 0, finished.stderr
    candidates = [match.groupdict() for match in CANDIDATE.finditer(finished.stdout)]
    for candidate, start in zip(candidates, CANDIDATES[name], strict=True):
        assert candidate["name"].startswith(start)
    assert {int(candidate["done"]) for candidate in candidates} == DONE.get(name, {EVENTS})
    for candidate in candidates:
        lowest, median, highest = (float(candidate[name]) for name in ("lowest", "median", "highest"))
        assert lowest <= median <= highest
        assert lowest > 0 or name == "memory"
    assert len(RATIO.findall(finished.stdout)) == RATIOS[name]
    [file] = tmp_path.iterdir()
    written = json.loads(file.read_text())["comparisons"]
    assert sum(len(comparison["candidates"]) for comparison in written) == len(candidates)


@pytest.mark.long
@pytest.mark.parametrize("stack", endpoints.STACKS)
def test_a_server_is_measured_with_our_route(stack):
    side = endpoints.Side("route", table=endpoints.STACKS[stack].table)
    assert_served(endpoints.measure(RUN, endpoints.STACKS[stack], side))


@pytest.mark.long
@pytest.mark.parametrize("variant", ["bare", "sample", "commit", "delay", "lean"])
def test_a_server_is_measured_with_each_other_variant(variant, redis_url):
    run = replace(RUN, redis=redis_url)
    table = {"commit": "accepted", "lean": "envoyou_inbox"}.get(variant)
    side = endpoints.Side(variant, table=table, signed_content="raw" if variant == "lean" else "canonical")
    assert_served(endpoints.measure(run, endpoints.STACKS["Flask, gunicorn"], side))


def assert_served(result):
    assert result.done == EVENTS
    assert result.rate == pytest.approx(1e6 / result.details["CPU us/req"])
    assert 0 < result.details["p50 ms"] <= result.details["p99 ms"]


@pytest.mark.long
def test_a_page_of_the_admin_is_measured(tmp_path):
    url = f"sqlite:///{tmp_path}/project.db"
    admin_growth.call(url, ["fill", "200"])
    with sqlite3.connect(tmp_path / "project.db") as connection:
        assert connection.execute("SELECT count(*) FROM envoyou_processed_event").fetchone() == (201,)
    connection.close()
    result = admin_growth.measure(replace(RUN, events=2), url, "?status__exact=processed")
    assert result.done == 2
    assert result.rate > 0
    with pytest.raises(MeasurementError, match="expected a 200, got 302"):
        admin_growth.measure(replace(RUN, events=2), url, "?no_such_filter=1")


def test_the_endpoint_is_measured_without_a_server():
    [measure] = endpoints.in_process(RUN).candidates.values()
    assert measure().done == EVENTS


def test_the_comparison_of_a_stack_has_our_variants_beside_the_others():
    comparison = endpoints.of_stack(replace(RUN, redis="redis://"), "FastAPI", endpoints.STACKS["FastAPI, uvicorn"])
    assert list(comparison.candidates) == [
        *("bare", "the guide's sample", "sample + commit (SQLite)", "sample + Celery .delay()"),
        *("envoyou, route, SQLite", "envoyou, lean, SQLite"),
    ]
    assert [(ratio.label, ratio.target) for ratio in comparison.ratios if ratio.target] == [
        ("envoyou, route, SQLite / bare", 1.15)
    ]


def test_a_response_that_is_not_a_200_is_an_error():
    class Refusing(socketserver.StreamRequestHandler):
        def handle(self):
            self.rfile.readline()
            self.wfile.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(MeasurementError, match=r"expected a 200 with its length, got b'HTTP/1\.1 401"):
            send_all(server.server_address[1], [b"POST / HTTP/1.1\r\n\r\n"], connections=1)
        thread.join()


@pytest.mark.slow  # as all that needs the libraries it is compared with
def test_a_library_that_accepts_another_body_is_an_error(monkeypatch):
    monkeypatch.setattr(verification, "slack", lambda body, now: lambda body: None)
    with pytest.raises(MeasurementError, match="slack_sdk, no parsing accepts a body that was not signed"):
        verification.candidates_for(verification.body_of(300))


@pytest.mark.parametrize("size", verification.FLOOR_TARGETS)
def test_a_verified_body_has_the_size_of_its_title(size):
    assert len(verification.body_of(size)) == size


def test_the_summary_has_each_aim_and_whether_it_is_met(tmp_path):
    comparison = Comparison(
        "milliseconds",
        {},
        [
            Ratio("fast", "slow", target=2),
            Ratio("slow", "fast", at_most=0.2),
            Ratio("slow", "slow"),
            Limit("slow", at_most=150, above="base"),
        ],
    )
    rounds = {"slow": [Round(1, 200.0)], "fast": [Round(1, 400.0)], "base": [Round(1, 20.0, {"p50": 3.0})]}
    result = Result("work", comparison, rounds)
    assert [line.split() for line in summary([result])] == [
        ["figure", "value", "aim"],
        ["milliseconds"],
        ["fast", "/", "slow", "2.00", ">=", "2", "met"],
        ["slow", "/", "fast", "0.50", "<=", "0.2", "not", "met"],
        ["slow", "-", "base", "180.00", "<=", "150", "not", "met"],
    ]
    document = json.loads(write_json([result], RUN, tmp_path / "new").read_text())
    [written] = document["comparisons"]
    assert written["candidates"]["base"] == [{"done": 1, "rate": 20.0, "details": {"p50": 3.0}}]
    assert written["ratios"][0] == {"figure": "fast / slow", "value": 2.0, "at_least": 2, "at_most": None}


def test_a_statement_that_reads_the_whole_inbox_is_counted(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/inbox.db")
    with closing(SqlInbox(engine)) as inbox:
        inbox.open()
        growth.fill(engine, "SQLite", 200)
        assert inbox.stats(exact=True).total == 200
        sent = growth.sent_by(engine, lambda: inbox.get("evt_old_7"))
        assert sent
        assert growth.full_scans(engine, sent) == 0
        assert growth.full_scans(engine, [("SELECT body FROM envoyou_inbox WHERE attempts = 7", ())]) == 1
    engine.dispose()


def test_unknown_benchmark():
    finished = benchmarks("speed")
    assert finished.returncode == 2
    assert "unknown benchmark: speed" in finished.stderr


def test_candidates_alternate_and_ratios_compare_medians():
    turns = []
    rates = {"slow": iter([100.0, 1.0, 120.0]), "fast": iter([250.0, 240.0, 9000.0])}

    def candidate(name):
        def run():
            turns.append(name)
            return Round(done=7, rate=next(rates[name]))

        return run

    comparison = Comparison("work", {name: candidate(name) for name in rates}, [Ratio("fast", "slow", target=2)])
    lines = list(table(comparison, comparison.measure(rounds=3)))
    assert turns == ["slow", "fast"] * 3
    assert [line.split() for line in lines[1:]] == [
        ["slow", "100", "1", "120", "21"],
        ["fast", "250", "240", "9000", "21"],
        ["=", "fast", "/", "slow", "2.50", "(target:", "at", "least", "2)"],
    ]


def test_the_ledger_counts_each_job_once_in_all_processes(tmp_path, monkeypatch):
    times = iter([10.0, 10.5, 11.0, 12.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    ledger = Ledger.create(tmp_path / "ledger", 3)
    other = Ledger(tmp_path / "ledger")
    ledger.note(2)
    other.note(0)
    other.note(0)
    assert (ledger.done, ledger.complete) == (2, False)
    other.note(1)
    assert ledger.complete
    assert ledger.round() == Round(done=3, rate=1.0)


def worker_running(code: str) -> list[str]:
    """Return the command of a worker that runs `code` instead."""
    return [sys.executable, "-c", f"from benchmarks.workers.envoyou_app import ledger\n{code}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("ledger.note(3)", "1 of 5 jobs of envoyou_app were done"),
        ("[ledger.note(number) for number in range(5)]", "0 of 5 events were processed"),
        ("raise SystemExit('out of order')", "out of order"),
    ],
)
def test_incomplete_work_is_an_error(code, words):
    with pytest.raises(MeasurementError, match=words):
        drain.drain_inbox(5, databases(RUN)["SQLite"], "plain", worker_running(code))


@pytest.mark.slow
def test_a_stalled_worker_is_killed_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "STALLED_AFTER", 3.0)
    monkeypatch.setattr(processes, "STOP_TIMEOUT", 0.2)
    pids = tmp_path / "pids"
    stubborn = f"""
import os, pathlib, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child:
    pathlib.Path({str(pids)!r}).write_text(f"{{os.getpid()}} {{child}}")
while True:
    signal.pause()
"""
    with pytest.raises(MeasurementError, match="0 of 5 jobs"):
        drain.drain_inbox(5, databases(RUN)["SQLite"], "plain", worker_running(stubborn))
    remaining = [int(pid) for pid in pids.read_text().split()]
    assert len(remaining) == 2
    # SIGKILL takes effect asynchronously.
    deadline = time.monotonic() + 20
    while any(map(is_running, remaining)):
        assert time.monotonic() < deadline, "the processes are still running"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(("app", "worker"), [("celery_app", drain.CELERY), ("dramatiq_app", drain.DRAMATIQ)])
def test_keys_in_redis_are_deleted(app, worker, redis_url, monkeypatch):
    import redis

    prefixes = []
    seen = []

    @contextmanager
    def remembered(server):
        with key_prefix(server) as prefix:
            prefixes.append(prefix)
            yield prefix
            seen.extend(keys(prefix))

    def keys(prefix):
        with redis.Redis.from_url(redis_url) as client:
            return list(client.scan_iter(match=f"{prefix}*"))

    monkeypatch.setattr(drain, "key_prefix", remembered)
    assert drain.drain_redis(5, redis_url, app, worker).done == 5
    assert seen
    assert keys(prefixes[0]) == []


def test_missing_rows_are_an_error():
    with pytest.raises(MeasurementError, match="0 rows of 5"), effects_database(databases(RUN)["SQLite"], 5):
        pass
