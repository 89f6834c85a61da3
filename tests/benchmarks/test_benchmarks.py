"""Tests of the benchmarks with little work: results are printed only for work that was done."""

import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from benchmarks import drain, processes
from benchmarks.databases import databases
from benchmarks.effects import effects_database
from benchmarks.ledger import Ledger
from benchmarks.measuring import Comparison, MeasurementError, Ratio, Round, Run, table
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
}
DONE = {"unsigned": {2, EVENTS}}
"""How much work is done, if it is not `EVENTS`: expensive work is limited."""

RATIOS = {"acknowledgements": 1, "django": 3, "claims": 2, "transactions": 10, "drain": 8, "unsigned": 7}

CANDIDATE = re.compile(
    r"^  (?!= )(?P<name>\S.*?) +(?P<median>\d+) +(?P<lowest>\d+) +(?P<highest>\d+) +(?P<done>\d+)$", re.M
)
RATIO = re.compile(r"^  = (?P<of>.+) / (?P<to>.+?) +(?P<ratio>\d+\.\d\d)", re.M)


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
def test_results_are_printed(name, postgres_server, redis_url):
    finished = benchmarks(
        *(name, "--events", str(EVENTS), "--rounds", "1", "--requests", "4"),
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
        assert 0 < int(candidate["lowest"]) <= int(candidate["median"]) <= int(candidate["highest"])
    assert len(RATIO.findall(finished.stdout)) == RATIOS[name]


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
