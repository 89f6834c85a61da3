"""Sites that crash under load, senders that retry like the platform, and the comparison of both afterwards."""

from __future__ import annotations

import http.client
import itertools
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from envoyou_core import Event
from envoyou_core.inbox import FINISHED, InboxStats, Status
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.testing import sample_event, sign_delivery
from tests.adapters import chosen
from tests.servers.processes import PATH, PATIENCE, SECRET, Server, Site, gunicorn, uvicorn, wait_for

APPS = Path(__file__).parent / "apps"
LEASE = 1
"""Seconds."""

SENDER_DELAYS = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each of the platform's five attempts to deliver."""

SERVERS = {
    name: server
    for name, server in {
        "flask": gunicorn("flask_app:app", "--worker-class=gthread", "--threads=4"),
        "fastapi": uvicorn("fastapi_app:app"),
    }.items()
    if name in chosen()
}
ANY_SERVER = next(iter(SERVERS.values()), None)


OF_THE_DJANGO_PROJECT = ["--settings=django_site.settings", "--pythonpath=."]


def django(server: Server) -> Server:
    """Return a server of the Django project, whose setup creates its tables."""
    return replace(server, setup=["django", "migrate", "--run-syncdb", "--verbosity=0", *OF_THE_DJANGO_PROJECT])


DJANGO_SERVERS = {
    "django": django(gunicorn("django_site.wsgi", "--worker-class=gthread", "--threads=4")),
    "django under ASGI": django(uvicorn("django_site.asgi:application")),
}
if "django" not in chosen():
    DJANGO_SERVERS.clear()

ANY_SERVER_OF_EACH_INBOX = dict([*SERVERS.items()][:1] + [*DJANGO_SERVERS.items()][:1])


@dataclass(slots=True)
class CrashingSite(Site):
    """A site with any inbox, whose process is killed at a named point."""

    inbox_url: str = ""
    crash_at: str = ""
    crash_on_pass: int = 1
    settings: dict[str, str] = field(default_factory=dict)

    def _contexts(self) -> dict[str, Any]:
        variables = {
            "EFFECTS_FOLDER": str(self.folder),
            "ENVOYOU_WEBHOOK_SECRET": SECRET,
            "ENVOYOU_INBOX": self.inbox_url,
            "ENVOYOU_LEASE": str(LEASE),
            "CRASH_AT": self.crash_at,
            "CRASH_ON_PASS": str(self.crash_on_pass),
            **self.settings,
        }
        return {"cwd": APPS, "env": {**os.environ, **variables}}

    @property
    def database_file(self) -> Path | None:
        scheme, _, path = self.inbox_url.partition(":///")
        return Path(path) if scheme == "sqlite" else None

    @property
    def is_django(self) -> bool:
        """Whether the site is the Django project. Only its server has a setup command."""
        return bool(self.server.setup)

    @property
    def crashed(self) -> bool:
        """Whether the crash point was reached."""
        return (self.folder / "crashed").exists()

    def said(self, what: str) -> int:
        """Return how often `what` occurs in the log of the server."""
        return (self.folder / f"server-{self._starts}.log").read_text().count(what)

    def lines(self, name: str) -> list[str]:
        """Return the lines that handlers have written to the file of that name."""
        file = self.folder / name
        return file.read_text().splitlines() if file.exists() else []


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a run: the log of the sender compared with the database.

    Attributes:
        acknowledged: the ids of the events that were answered 200.
        lost: the ids of those that were not processed. A dead event counts as lost.
        doubled: how many rows the transactional handler has inserted beyond one per event.
        unfinished: how many events are not finished.
        repeated: how often the plain handler ran beyond once per event.
    """

    acknowledged: frozenset[str]
    lost: frozenset[str]
    doubled: int
    unfinished: int
    repeated: int

    def __str__(self) -> str:
        return (
            f"{len(self.acknowledged)} acknowledged, {len(self.lost)} lost, {self.doubled} doubled, "
            f"{self.unfinished} unfinished, {self.repeated} plain handler runs repeated"
        )


@contextmanager
def crashing_site(server: Server, folder: Path, inbox_url: str, **fields: Any) -> Iterator[CrashingSite]:
    """Set up a site without starting it, and stop it at the end of the block."""
    site = CrashingSite(server, folder, inbox_url=inbox_url, **fields)
    if site.is_django:
        replace(site, crash_at="").set_up()
    else:
        make_tables(inbox_url)
    try:
        yield site
    finally:
        site.close()


def make_tables(inbox_url: str) -> None:
    """Create the tables of the inbox and of the effects, for a site without a setup command."""
    inbox = SqlInbox(inbox_url)
    inbox.migrate()
    inbox.close()
    engine = create_engine(inbox_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE effects (event_id VARCHAR(255))"))
        number = "SERIAL" if engine.dialect.name == "postgresql" else "INTEGER PRIMARY KEY AUTOINCREMENT"
        columns = f"number {number}, user_id VARCHAR(255), event_id VARCHAR(255)"
        connection.execute(text(f"CREATE TABLE turns ({columns})"))
    engine.dispose()


@contextmanager
def another_server(site: CrashingSite, server: Server, **settings: str) -> Iterator[CrashingSite]:
    """Make a second server, not started, with the same inbox and the same effects."""
    folder = site.folder / "another"
    folder.mkdir()
    settings = {**site.settings, "EFFECTS_FOLDER": str(site.folder), **settings}
    other = CrashingSite(server, folder, inbox_url=site.inbox_url, settings=settings)
    try:
        yield other
    finally:
        other.close()


WORKER = ["-c", "from envoyou_core.cli import main; main()", "--app", "hooks", "worker"]
DJANGO_WORKER = ["-m", "django", "envoyou", "worker", *OF_THE_DJANGO_PROJECT]


@dataclass(slots=True)
class WorkerProcess:
    """`envoyou worker` on the inbox of a site, or `manage.py envoyou worker` of the Django project."""

    site: CrashingSite
    name: str
    settings: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        contexts = self.site._contexts()
        contexts["env"] |= self.settings
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *(DJANGO_WORKER if self.site.is_django else WORKER)],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **contexts,
            )
        starts = self.said("worker default started")
        wait_for(lambda: self.said("worker default started") > starts, self.log.read_text)

    @property
    def log(self) -> Path:
        return self.site.folder / f"worker-{self.name}.log"

    def said(self, what: str) -> int:
        """Return how often `what` occurs in the log."""
        return self.log.read_text().count(what)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    @property
    def busy(self) -> bool:
        """Whether a handler is running."""
        starts, ends = (self.site.lines(name).count(str(self.pid)) for name in ("starts", "ends"))
        return starts > ends

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def end(self) -> int:
        """Stop the process with SIGTERM and return its exit code."""
        assert self._process is not None
        self.signal(signal.SIGTERM)
        return self._process.wait(PATIENCE)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)


@contextmanager
def worker_process(site: CrashingSite, name: str = "1", **settings: str) -> Iterator[WorkerProcess]:
    """Run a worker process until the end of the block."""
    worker = WorkerProcess(site, name, settings)
    try:
        worker.start()
        yield worker
    finally:
        worker.close()


@dataclass(frozen=True, slots=True)
class Answer:
    """The response to one delivery. The status is `None` if the connection broke before it.

    `kept` says whether the connection had been used before.
    """

    event_id: str
    status: int | None
    retry_after: str | None = None
    seconds: float = 0.0
    kept: bool = False


class Platform:
    """Delivers to several servers in turn, over persistent connections, and records the responses.

    As in the guide, each event is delivered until it is answered 200, at most five times. Each sender pauses for
    `pause` seconds after an event. `before_the_last` is called before the fifth attempt and may block: on a busy
    machine, the outage of a test may last longer than the attempts of the platform.
    """

    def __init__(
        self,
        *sites: Site,
        senders: int = 4,
        pause: float = 0.0,
        before_the_last: Callable[[], object] = lambda: None,
    ) -> None:
        self._sites = itertools.cycle(sites)
        self._senders = senders
        self._pause = pause
        self._before_the_last = before_the_last
        self._of_sender = threading.local()
        self.answers: list[Answer] = []

    def deliver_all(self, events: Sequence[Event]) -> frozenset[str]:
        """Deliver `events`, several at a time, and return the ids of all events that were answered 200 so far."""
        waiting = queue.SimpleQueue[Event]()
        for event in events:
            waiting.put(event)

        def deliver_waiting(_: int) -> None:
            with suppress(queue.Empty):
                while True:
                    self._deliver(waiting.get_nowait())

        self._run_senders(deliver_waiting)
        return self.acknowledged

    def deliver_until(self, enough: threading.Event) -> list[Event]:
        """Deliver new events until `enough` is set, and return them."""
        sent: list[Event] = []

        def deliver_new(_: int) -> None:
            while not enough.is_set():
                [event] = users(1)
                sent.append(event)
                self._deliver(event)
                time.sleep(self._pause)

        self._run_senders(deliver_new)
        return sent

    def _run_senders(self, work: Callable[[int], None]) -> None:
        def send(number: int) -> None:
            with Connections() as self._of_sender.connections:
                work(number)

        with ThreadPoolExecutor(self._senders) as pool:
            for _ in pool.map(send, range(self._senders)):
                pass

    @property
    def acknowledged(self) -> frozenset[str]:
        return frozenset(answer.event_id for answer in list(self.answers) if answer.status == 200)

    def _deliver(self, event: Event) -> None:
        site = next(self._sites)
        for delay in SENDER_DELAYS:
            time.sleep(delay)
            if delay:
                # On a busy machine, a server may take longer to start as well.
                wait_for(site.listens)
            if delay == SENDER_DELAYS[-1]:
                self._before_the_last()
            answer = self._of_sender.connections.post(site, event)
            self.answers.append(answer)
            if answer.status == 200:
                return


class Connections:
    """The persistent connections of one sender, one to each site."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], http.client.HTTPConnection] = {}

    def __enter__(self) -> Connections:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._open.values():
            connection.close()

    def post(self, site: Site, event: Event) -> Answer:
        """Make one delivery."""
        try:
            if kept := self._open.pop(site.address, None):
                # The server may close a connection at any time between two deliveries; then deliver on a new one.
                with suppress(ConnectionError):
                    return replace(self._exchange(kept, site, event), kept=True)
            return self._exchange(http.client.HTTPConnection(*site.address, timeout=30), site, event)
        except (OSError, http.client.HTTPException):
            return Answer(event.id, None)

    def _exchange(self, connection: http.client.HTTPConnection, site: Site, event: Event) -> Answer:
        delivery = sign_delivery(event, secret=SECRET)
        began = time.monotonic()
        try:
            connection.request("POST", PATH, delivery.body, delivery.headers)
            response = connection.getresponse()
            response.read()
        except BaseException:
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            self._open[site.address] = connection
        return Answer(event.id, response.status, response.getheader("Retry-After"), time.monotonic() - began)


def post(site: Site, event: Event) -> Answer:
    """Make one delivery over a new connection."""
    with Connections() as connections:
        return connections.post(site, event)


def users(count: int) -> list[Event]:
    return [sample_event("user.created") for _ in range(count)]


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as another process reads it from the inbox."""

    status: Status
    crashes: int
    last_error: str | None


class InboxTable:
    """Reads the inbox of a site, in the table of the core or of Django, which have the same columns."""

    def __init__(self, site: CrashingSite) -> None:
        self._engine = create_engine(site.inbox_url)
        if self._engine.dialect.name == "postgresql":
            # Some sites have another default, with which reading would conflict with their work.
            self._engine = self._engine.execution_options(isolation_level="READ COMMITTED")
        self._table = "envoyou_processed_event" if site.is_django else "envoyou_inbox"

    def close(self) -> None:
        self._engine.dispose()

    def stats(self) -> InboxStats:
        counts = self._read(f"SELECT status, COUNT(*) FROM {self._table} GROUP BY status")
        return InboxStats(by_status={Status(status): count for status, count in counts}, overdue=0.0)

    def processed(self) -> set[str]:
        rows = self._read(f"SELECT event_id FROM {self._table} WHERE status = 'processed'")
        return {event_id for (event_id,) in rows}

    def dead(self) -> dict[str, str | None]:
        """Return the last errors of the dead events, by event id."""
        return dict(self._read(f"SELECT event_id, last_error FROM {self._table} WHERE status = 'dead'"))  # type: ignore[arg-type]

    def taken_over(self) -> int:
        """Return how often a worker has taken over an event because its lease had expired."""
        [(crashes,)] = self._read(f"SELECT COALESCE(SUM(crashes), 0) FROM {self._table}")
        return int(crashes)

    def get(self, event_id: str) -> StoredEvent:
        columns = "status, crashes, last_error"
        [row] = self._read(f"SELECT {columns} FROM {self._table} WHERE event_id = :id", id=event_id)
        return StoredEvent(Status(row[0]), row[1], row[2])

    def effects(self) -> list[str]:
        """Return the event ids that handlers have inserted in the transactions of the inbox."""
        return [event_id for (event_id,) in self._read("SELECT event_id FROM effects")]

    def _read(self, statement: str, **values: object) -> Sequence[Any]:
        with self._engine.connect() as connection:
            return connection.execute(text(statement), values).all()


def unfinished(inbox: SqlInbox | InboxTable) -> int:
    return sum(count for status, count in inbox.stats().by_status.items() if status not in FINISHED)


def wait_until_done(inbox: SqlInbox | InboxTable, *, leaving: int = 0) -> None:
    """Wait until all events but `leaving` are finished. Fail if their number stops decreasing."""
    while (left := unfinished(inbox)) > leaving:
        wait_for(lambda left=left: unfinished(inbox) < left, inbox.stats)


def outcome(site: CrashingSite, acknowledged: frozenset[str], *, leaving: int = 0) -> Outcome:
    """Wait until all events but `leaving` are finished, then compare the log of the sender with the database."""
    with closing(InboxTable(site)) as inbox:
        wait_until_done(inbox, leaving=leaving)
        left = unfinished(inbox)
        processed, rows = inbox.processed(), inbox.effects()
    lines = site.lines("effects")
    return Outcome(
        acknowledged=acknowledged,
        lost=acknowledged - processed | acknowledged - set(rows) | acknowledged - set(lines),
        doubled=len(rows) - len(set(rows)),
        unfinished=left,
        repeated=len(lines) - len(set(lines)),
    )
