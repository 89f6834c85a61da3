"""The recipes of `docs/task-queues.md`: a real broker, and a worker that is killed in the middle of a handler."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.testing import sample_event
from tests import services
from tests.documentation.pages import Page
from tests.servers.processes import GTHREAD, PATIENCE, Site, gunicorn, site, wait_for

pytestmark = pytest.mark.slow

RECIPES = {block.file: block.code for block in Page("docs/task-queues.md").all_blocks()}

HANDLERS = """

from pathlib import Path

from sqlalchemy import text

BEGUN = Path(os.environ["EFFECTS_FOLDER"], "begun")


@webhooks.on("user.*")
def hangs_at_first(event, connection):
    connection.execute(text("INSERT INTO effects (event_id) VALUES (:id)"), {"id": event.id})
    if event.type == "user.created" and not BEGUN.exists():
        # In one step: the test reads the process id as soon as the file exists.
        BEGUN.with_suffix(".new").write_text(str(os.getpid()))
        BEGUN.with_suffix(".new").rename(BEGUN)
        import time

        time.sleep(600)


@webhooks.on("auth.*")
def fails_at_first(event, attempt, connection):
    connection.execute(text("INSERT INTO effects (event_id) VALUES (:id)"), {"id": event.id})
    if attempt == 1:
        raise ConnectionError("not yet")
"""

APP = """
from envoyou_core.wsgi import webhooks_entry
from {module} import webhooks


def nothing(environ, start_response):
    start_response("404 Not Found", [])
    return []


app = webhooks_entry(nothing, webhooks)
"""

BIN = Path(sys.executable).parent
WORKERS = {
    "celery": [sys.executable, "-m", "celery", "-A", "celery_hooks", "worker", "--concurrency=1"],
    "dramatiq": [sys.executable, "-m", "dramatiq", "dramatiq_hooks", "--processes=1", "--threads=1"],
    "rq": [str(BIN / "rq"), "worker", "webhooks", "--url", "{broker}"],
}


@dataclass(slots=True)
class QueueSite(Site):
    """A server whose events are handled by the workers of a task queue."""

    broker: str = field(default="", kw_only=True)
    inbox_url: str = field(default="", kw_only=True)

    def _contexts(self) -> dict[str, Any]:
        contexts = super(QueueSite, self)._contexts()
        contexts["env"] |= {
            "BROKER_URL": self.broker,
            "ENVOYOU_INBOX": self.inbox_url,
            "ENVOYOU_RETRY_INITIAL_DELAY": "0.5",
            # For workers that import the application by its module's name.
            "PYTHONPATH": os.pathsep.join([str(self.apps), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        return contexts

    @contextmanager
    def worker(self, queue: str) -> Iterator[None]:
        """Run a worker of the queue during the block, and kill it and its children at the end."""
        command = [part.format(broker=self.broker) for part in WORKERS[queue]]
        with (self.folder / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, **self._contexts()
            )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)

    def committed(self) -> Counter[str]:
        """Return how often each event has had its effect."""
        engine = create_engine(self.inbox_url)
        try:
            with engine.connect() as connection:
                return Counter(connection.scalars(text("SELECT event_id FROM effects")))
        finally:
            engine.dispose()

    def explain(self) -> str:
        return f"{self.committed()}\n{self.log.read_text()}\n{(self.folder / 'worker.log').read_text()}"


@pytest.fixture
def inbox_url(postgres_server: str) -> Iterator[str]:
    with services.database(postgres_server) as url:
        inbox = SqlInbox(url)
        inbox.migrate()
        inbox.close()
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE effects (event_id VARCHAR(255))"))
        engine.dispose()
        yield url


@pytest.mark.parametrize("queue", WORKERS)
def test_a_killed_worker_of_a_task_queue_loses_and_doubles_nothing(queue: str, tmp_path: Path, inbox_url: str) -> None:
    if find_spec(queue) is None:
        pytest.skip(f"{queue} is not installed")
    module = f"{queue}_hooks"
    (tmp_path / f"{module}.py").write_text(RECIPES[f"{module}.py"] + HANDLERS)
    (tmp_path / "app.py").write_text(APP.format(module=module))
    hanging = sample_event("user.created")
    events = [sample_event("auth.login"), *(sample_event("user.updated") for _ in range(3))]
    with (
        services.embedded_redis() as broker,
        site(
            gunicorn("app:app", *GTHREAD),
            tmp_path,
            kind=QueueSite,
            apps=tmp_path,
            broker=broker,
            inbox_url=inbox_url,
        ) as running,
    ):
        assert running.deliver(hanging).status == 200
        with running.worker(queue):
            wait_for(lambda: running.begun, running.explain)
            # RQ's worker runs each job in a process that would outlive it.
            os.kill(int((tmp_path / "begun").read_text()), signal.SIGKILL)
        assert all(running.deliver(event).status == 200 for event in events)
        with running.worker(queue):
            wait_for(lambda: len(running.committed()) > len(events), running.explain)
        assert running.committed() == {event.id: 1 for event in [hanging, *events]}
