"""What a killed process held is taken over at once on the same machine, and only there."""

import os
import queue
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from envoyou_core import Webhooks
from envoyou_core.inbox import Status
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.observability import LeasesEnded
from envoyou_core.worker.announcer import NO_EVENT
from envoyou_core.worker.recovery import RECOVERY_INTERVAL, Recovery
from tests.core.test_liveness import pid_namespace_command
from tests.core.test_worker_process import accept, wait_until
from tests.inbox.acts import add

SECRET = "whsec_test"
LEASE = 600
"""Seconds: no test waits for so long."""

HOOKS = f"""
import os
import time
from pathlib import Path

from envoyou_core import Webhooks

webhooks = Webhooks(secret="{SECRET}", inbox=os.environ["INBOX"], lease={LEASE}, concurrency=1)
name = os.environ["NAME"]
lease_holders = webhooks.inbox.lease_holders


def note(line):
    with open("log", "a") as log:
        log.write(line + "\\n")


def look():
    note(name + " looks")
    return lease_holders()


webhooks.inbox.lease_holders = look


@webhooks.on("user.*")
def handle(event):
    note(f"{{name}} handles {{event.id}}")
    while Path("hold").exists():
        time.sleep(0.02)
"""

CLI = "from envoyou_core.cli import main; main()"

linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not show what is needed")


class Site:
    """A folder with the handlers of the workers, on one inbox."""

    def __init__(self, folder, url):
        self.folder, self.url = folder, url
        self.webhooks = Webhooks(secret=SECRET, inbox=url, handoff="manual", lease=LEASE)
        (folder / "hooks.py").write_text(HOOKS)
        (folder / "hold").touch()

    @contextmanager
    def worker(self, name, command=()) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            [
                *command,
                sys.executable,
                "-P",
                "-c",
                "from envoyou_core.cli import main; main()",
                "--app",
                "hooks",
                "worker",
            ],
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                "INBOX": self.url,
                "NAME": name,
            },
            stderr=subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def log(self):
        return (self.folder / "log").read_text().splitlines() if (self.folder / "log").exists() else []

    def wait_until_handled_by(self, name, event):
        wait_until(lambda: f"{name} handles {event.id}" in self.log(), timeout=60)

    def wait_until_looked(self, name):
        """Wait until the worker has looked once more for processes that are gone, and done what follows from it."""
        looks = self.log().count(f"{name} looks")
        wait_until(lambda: self.log().count(f"{name} looks") >= looks + 2, timeout=60)

    def status(self, event):
        record = self.webhooks.inbox.get(event.id)
        return record.status, record.crashes


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.service)])
def inbox_url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'inbox.db'}"
    return request.getfixturevalue("postgres_inbox_url")


@pytest.fixture
def site(tmp_path, inbox_url):
    site = Site(tmp_path, inbox_url)
    yield site
    site.webhooks.inbox.close()


@linux
def test_what_a_killed_worker_held_is_taken_over_at_once(site):
    event = accept(site.webhooks, "user.created")
    with site.worker("first") as first:
        site.wait_until_handled_by("first", event)
        with site.worker("second"):
            site.wait_until_looked("second")
            assert site.status(event) == (Status.PROCESSING, 0)
            (site.folder / "hold").unlink()
            began = time.monotonic()
            # It stays a zombie: its parent does not wait for it.
            first.kill()
            site.wait_until_handled_by("second", event)
            print(f"\nhandled again {time.monotonic() - began:.1f} s after the kill")
            wait_until(lambda: site.status(event) == (Status.PROCESSED, 1))


@linux
@pytest.mark.parametrize("inbox_url", ["sqlite"], indirect=True)
def test_a_drain_takes_over_at_once(site):
    handled = []
    site.webhooks.on("user.*", name="handle")(lambda event: handled.append(event.id))
    event = accept(site.webhooks, "user.created")
    with site.worker("first") as first:
        site.wait_until_handled_by("first", event)
        assert site.webhooks.drain() == 0
        first.kill()
        first.wait()
        assert site.webhooks.drain() == 1
    assert handled == [event.id]
    assert site.status(event) == (Status.PROCESSED, 1)


@linux
@pytest.mark.parametrize("inbox_url", ["sqlite"], indirect=True)
def test_a_process_that_announces_to_a_task_queue_notices_that_a_task_was_killed(site):
    announced, seen = queue.Queue(), []
    accepting = Webhooks(secret=SECRET, inbox=site.url, handoff=announced.put, lease=LEASE)
    accepting.on("user.*", name="handle")(lambda event: None)
    accepting.subscribe(seen.append)
    event = accept(site.webhooks, "user.created")
    with site.worker("first") as first:
        site.wait_until_handled_by("first", event)
        accepting.start()
        try:
            first.kill()
            first.wait()
            assert announced.get(timeout=60) == NO_EVENT
        finally:
            accepting.stop()
            accepting.inbox.close()
    assert [notice for notice in seen if isinstance(notice, LeasesEnded)] == [LeasesEnded("default", 1, str(first.pid))]
    assert site.webhooks.inbox.seconds_until_due() <= 0


@linux
@pytest.mark.parametrize("inbox_url", ["sqlite"], indirect=True)
def test_workers_in_different_pid_namespaces_take_nothing_from_each_other(site):
    """As in two containers that share a volume. Both workers have the process id 1."""
    container = [*pid_namespace_command(), "--mount-proc"]
    first_event = accept(site.webhooks, "user.created")
    with site.worker("first", container) as first:
        site.wait_until_handled_by("first", first_event)
        second_event = accept(site.webhooks, "user.created")
        with site.worker("second", container):
            site.wait_until_handled_by("second", second_event)
            assert [process.pid for process in site.webhooks.inbox.lease_holders()] == [1, 1]
            # Here, and from a third namespace.
            assert site.webhooks.drain() == 0
            assert site.status(first_event) == site.status(second_event) == (Status.PROCESSING, 0)
            first.kill()
            first.wait()
            (site.folder / "hold").unlink()
            wait_until(lambda: site.status(second_event) == (Status.PROCESSED, 0))
            site.wait_until_looked("second")
            assert site.webhooks.drain() == 0
            # The lease has to expire.
            assert site.status(first_event) == (Status.PROCESSING, 0)


def test_a_process_is_listed_before_it_holds_a_lease(clock):
    class Watched(MemoryInbox):
        def claim(self, limit, lease, claim_filter):
            assert claim_filter.process_id in {process.id for process in self.processes()}
            return super().claim(limit, lease, claim_filter)

    webhooks = Webhooks(secret=SECRET, inbox=Watched(clock=clock), clock=clock, handoff="manual")
    add(webhooks.inbox)
    assert len(webhooks._engine.claim(1)) == 1
    assert webhooks.inbox.lease_holders() == webhooks.inbox.processes()


def test_a_worker_looks_once_in_a_while_also_if_the_inbox_fails(clock):
    class Failing(MemoryInbox):
        def lease_holders(self):
            raise OSError("disk I/O error")

    webhooks = Webhooks(secret=SECRET, inbox=Failing(clock=clock), clock=clock, handoff="manual")
    recovery = Recovery(webhooks._inbox, webhooks._presence, monotonic=clock)
    assert recovery.is_due
    if sys.platform == "linux":
        with pytest.raises(OSError, match="disk"):
            recovery.run()
    assert not recovery.is_due
    clock.advance(RECOVERY_INTERVAL)
    assert recovery.is_due
