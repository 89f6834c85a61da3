"""Several processes on one inbox: each effect happens once, also if a process freezes."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from sqlalchemy import create_engine, text

from envoyou_core.inbox.history import decode_history
from tests.reliability.sites import (
    ANY_SERVER,
    DJANGO_SERVERS,
    LEASE,
    SERVERS,
    Platform,
    WorkerProcess,
    another_server,
    crashing_site,
    django,
    outcome,
    users,
    worker_process,
)
from tests.servers.processes import gunicorn, wait_for

pytestmark = pytest.mark.slow

EVENTS = 5_000
STOPS = 4


@pytest.mark.parametrize("inbox_url", [pytest.param("postgresql", marks=pytest.mark.service)], indirect=True)
def test_two_servers_handle_each_event_once(inbox_url: str, tmp_path: Path) -> None:
    """If both are available, one is WSGI and one ASGI. The senders keep their connections."""
    events = users(EVENTS)
    first, *_, last = [*SERVERS.values()] * 2
    # A long lease, because a live process may be slow on a busy machine.
    with (
        crashing_site(first, tmp_path, inbox_url, settings={"ENVOYOU_LEASE": "15"}) as site,
        another_server(site, last) as other,
    ):
        site.start()
        other.start()
        platform = Platform(site, other, senders=8)
        acknowledged = platform.deliver_all(events)
        result = outcome(site, acknowledged)
        workers = [site.lines("ends").count(str(pid)) for pid in {*site.lines("ends")}]
    kept = sum(answer.kept for answer in platform.answers)
    print(
        f"\n{kept} of {len(platform.answers)} deliveries over kept connections, {workers} runs by each worker: {result}"
    )
    assert kept > 0
    assert len(workers) == 2
    assert min(workers) > 0
    assert len(acknowledged) == len(events)
    assert not result.lost
    assert result.doubled == 0
    assert result.repeated == 0
    assert result.unfinished == 0


@pytest.mark.skipif(not DJANGO_SERVERS, reason="Django is not among the chosen adapters")
@pytest.mark.parametrize("inbox_url", [pytest.param("postgresql", marks=pytest.mark.service)], indirect=True)
def test_two_django_servers_and_two_worker_processes_handle_each_event_once(inbox_url: str, tmp_path: Path) -> None:
    events = users(5_000)
    server = django(gunicorn("django_site.wsgi", "--workers=2", "--worker-class=gthread", "--threads=4"))
    with (
        crashing_site(server, tmp_path, inbox_url, settings={"ENVOYOU_LEASE": "15"}) as site,
        worker_process(site, "1"),
        worker_process(site, "2"),
    ):
        site.start()
        # One process may get all connections; the worker of the other one polls the inbox.
        wait_for(lambda: site.visit() or site.said("worker default started") == 2)
        acknowledged = Platform(site, senders=8).deliver_all(events)
        result = outcome(site, acknowledged)
        workers = [site.lines("ends").count(pid) for pid in sorted({*site.lines("ends")})]
    print(f"\n{workers} handler runs by each worker: {result}")
    assert len(workers) == 4
    assert len(acknowledged) == len(events)
    assert not result.lost
    assert result.doubled == 0
    assert result.repeated == 0
    assert result.unfinished == 0


@pytest.mark.parametrize("asleep_in", ["a plain handler", "a transaction"])
def test_workers_that_sleep_through_their_lease(asleep_in: str, inbox_url: str, tmp_path: Path) -> None:
    """One of two worker processes is stopped for longer than its lease, and continues beside the one that took over.

    On SQLite it may be stopped while it holds the write lock; then all others wait until it continues.
    """
    slow = {"PLAIN_SECONDS": "0.2"} if asleep_in == "a plain handler" else {"TRANSACTIONAL_SECONDS": "0.03"}
    may_lock = inbox_url.startswith("sqlite")
    with (
        crashing_site(ANY_SERVER, tmp_path, inbox_url, settings={"ENVOYOU_HANDOFF": "manual", **slow}) as site,
        worker_process(site, "1") as one,
        worker_process(site, "2") as two,
        ThreadPoolExecutor(1) as background,
    ):
        site.start()
        # A low rate, so that events that are taken over need not wait behind many others.
        platform = Platform(site, senders=2, pause=0.1)
        enough = threading.Event()
        sending = background.submit(platform.deliver_until, enough)
        try:
            for _ in range(STOPS):
                sleep_past_the_lease([one, two], inbox_url, may_lock=may_lock)
        finally:
            enough.set()
        events = sending.result()
        result = outcome(site, platform.acknowledged)
        lost = one.said("passed to another worker") + two.said("passed to another worker")
    print(f"\n{STOPS} stops, {taken_over(inbox_url)} taken over, {lost} lost leases reported: {result}")
    assert may_lock or taken_over(inbox_url) >= STOPS
    assert platform.acknowledged == {event.id for event in events}
    assert not result.lost
    assert result.doubled == 0
    assert result.unfinished == 0


def sleep_past_the_lease(workers: list[WorkerProcess], inbox_url: str, *, may_lock: bool) -> None:
    """Stop a busy worker until another has taken over, or for several leases if it may hold the write lock.

    A worker that was stopped between the last statement of a transaction and its commit keeps the row locked, so that
    no other takes over. Then a worker is stopped again.
    """
    before = taken_over(inbox_url)

    def sleeps() -> bool:
        worker = wait_for(lambda: next((worker for worker in workers if stops_busy(worker)), None))
        try:
            long_after_the_lease = time.monotonic() + 4 * LEASE
            wait_for(lambda: taken_over(inbox_url) > before or time.monotonic() > long_after_the_lease)
        finally:
            worker.signal(signal.SIGCONT)
        return may_lock or taken_over(inbox_url) > before

    wait_for(sleeps)


def stops_busy(worker: WorkerProcess) -> bool:
    """Stop the worker if it is busy, and continue it if it is not busy any more. Return whether it is stopped."""
    if not worker.busy:
        return False
    worker.signal(signal.SIGSTOP)
    wait_for(lambda: psutil.Process(worker.pid).status() == psutil.STATUS_STOPPED)
    if not worker.busy:
        worker.signal(signal.SIGCONT)
    return worker.busy


def taken_over(inbox_url: str) -> int:
    """Return how often a worker has taken over an event because its lease had expired.

    By the history: a worker that wakes up takes back the crash that was counted.
    """
    engine = create_engine(inbox_url)
    try:
        with engine.connect() as connection:
            histories = connection.scalars(text("SELECT history FROM envoyou_inbox"))
            return sum(attempt.status is None for stored in histories for attempt in decode_history(stored))
    finally:
        engine.dispose()
