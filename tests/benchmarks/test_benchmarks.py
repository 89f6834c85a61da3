"""The benchmarks at their smallest: what they print was done, and what was not done gets no figure."""

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
from benchmarks.effects import place_for_effects
from benchmarks.ledger import Ledger
from benchmarks.measuring import Comparison, MeasurementError, Ratio, Round, Run, table
from tests.services import key_prefix

ROOT = Path(__file__).parents[2]
EVENTS = 20
RUN = Run(events=EVENTS, rounds=1, requests=4, redis=None, postgres=None)

SIDES = {
    "acknowledgements": ["one commit each", "shared commits"],
    "django": ["create()", "shared commits"] * 3,
    "claims": ["settled one by one", "settled together"] * 2,
    "transactions": [
        "a loop on the driver",
        "a loop on SQLAlchemy",
        "a loop on the inbox",
        "a loop on the inbox",
        "envoyou worker",
        "envoyou worker",
    ]
    * 2,
    "drain": [
        "envoyou worker, SQLite",
        "envoyou worker, SQLite, a line in the log",
        "envoyou worker, SQLite, async handler",
        "envoyou worker, PostgreSQL",
        "envoyou worker, PostgreSQL, a line in the log",
        "envoyou worker, PostgreSQL, async handler",
        "Celery",
        "Dramatiq",
        "Dramatiq",
    ],
    "unsigned": ["text", "nested lists", "short floats", "members", "objects"] * 3
    + ["alone", "beside unsigned requests", "beside unsigned requests that are parsed whole"] * 2,
}
DONE = {"unsigned": {2, EVENTS}}
"""How much is done by other sides than all of what was asked for: of what takes long, less."""

RATIOS = {"acknowledgements": 1, "django": 3, "claims": 2, "transactions": 10, "drain": 8, "unsigned": 7}

SIDE = re.compile(r"^  (?!= )(?P<name>\S.*?) +(?P<median>\d+) +(?P<lowest>\d+) +(?P<highest>\d+) +(?P<done>\d+)$", re.M)
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


@pytest.mark.slow
@pytest.mark.parametrize("which", SIDES)
def test_it_prints_the_figures_of_what_was_done(which, postgres_server, redis_url):
    finished = benchmarks(
        *(which, "--events", str(EVENTS), "--rounds", "1", "--requests", "4"),
        ENVOYOU_TEST_POSTGRES_URL=postgres_server,
        ENVOYOU_TEST_REDIS_URL=redis_url,
        ENVOYOU_TEST_EMBEDDED="",
    )
    assert finished.returncode == 0, finished.stderr
    sides = [match.groupdict() for match in SIDE.finditer(finished.stdout)]
    assert [side["name"].startswith(name) for side, name in zip(sides, SIDES[which], strict=True)] == [True] * len(
        sides
    )
    assert {int(side["done"]) for side in sides} == DONE.get(which, {EVENTS})
    for side in sides:
        assert 0 < int(side["lowest"]) <= int(side["median"]) <= int(side["highest"])
    assert len(RATIO.findall(finished.stdout)) == RATIOS[which]


def test_a_benchmark_that_there_is_not_is_named():
    finished = benchmarks("speed")
    assert finished.returncode == 2
    assert "no benchmark speed" in finished.stderr


def test_sides_take_turns_and_the_ratio_is_that_of_their_medians():
    turns = []
    rates = {"slow": iter([100.0, 1.0, 120.0]), "fast": iter([250.0, 240.0, 9000.0])}

    def side(name):
        def turn():
            turns.append(name)
            return Round(done=7, rate=next(rates[name]))

        return turn

    comparison = Comparison("work", {name: side(name) for name in rates}, [Ratio("fast", "slow", aim=2)])
    lines = list(table(comparison, comparison.measure(rounds=3)))
    assert turns == ["slow", "fast"] * 3
    assert [line.split() for line in lines[1:]] == [
        ["slow", "100", "1", "120", "21"],
        ["fast", "250", "240", "9000", "21"],
        ["=", "fast", "/", "slow", "2.50", "(aim:", "2", "or", "more)"],
    ]


def test_a_ledger_counts_each_job_once_in_all_processes_from_the_first_to_the_last(tmp_path, monkeypatch):
    times = iter([10.0, 10.5, 11.0, 12.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    ledger = Ledger.create(tmp_path / "ledger", 3)
    elsewhere = Ledger(tmp_path / "ledger")
    ledger.note(2)
    elsewhere.note(0)
    elsewhere.note(0)
    assert (ledger.done, ledger.complete) == (2, False)
    elsewhere.note(1)
    assert ledger.complete
    assert ledger.round() == Round(done=3, rate=1.0)


def ours(code: str) -> list[str]:
    """A worker that does something else."""
    return [sys.executable, "-c", f"from benchmarks.workers.envoyou_app import ledger\n{code}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("ledger.note(3)", "1 of 5 jobs of envoyou_app were done"),
        ("[ledger.note(number) for number in range(5)]", "0 of 5 events are processed"),
        ("raise SystemExit('out of order')", "out of order"),
    ],
)
def test_a_worker_that_did_not_do_its_work_gets_no_figure(code, words):
    with pytest.raises(MeasurementError, match=words):
        drain.drain_inbox(5, databases(RUN)["SQLite"], "plain", ours(code))


@pytest.mark.slow
def test_a_worker_that_stalls_is_ended_with_all_it_has_started(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "STALLED_AFTER", 3.0)
    monkeypatch.setattr(processes, "PATIENCE_AT_THE_END", 0.2)
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
        drain.drain_inbox(5, databases(RUN)["SQLite"], "plain", ours(stubborn))
    left = [int(pid) for pid in pids.read_text().split()]
    assert len(left) == 2
    # SIGKILL is on its way to them, and takes a moment.
    deadline = time.monotonic() + 20
    while any(map(lives, left)):
        assert time.monotonic() < deadline, "they go on"
        time.sleep(0.02)


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(("app", "worker"), [("celery_app", drain.CELERY), ("dramatiq_app", drain.DRAMATIQ)])
def test_what_is_left_in_redis_is_deleted(app, worker, redis_url, monkeypatch):
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


def test_rows_that_are_missing_get_no_figure():
    with pytest.raises(MeasurementError, match="0 rows of 5"), place_for_effects(databases(RUN)["SQLite"], 5):
        pass
