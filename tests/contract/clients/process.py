"""An adapter's app under a production server, in a process that is started once for all tests."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from envoyou_core import Handlers
from envoyou_core.inbox import Inbox
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.nonces.redis import RedisNonceStore
from envoyou_core.spool.spool import Spool
from tests.contract import wire
from tests.contract.clients import (
    EACH_PROCESS_FINDS_OUT,
    MALFORMED_CHUNKS_RAISE,
    ONE_AT_A_TIME,
    PATH,
    REFUSES_UNKNOWN_METHODS,
    REFUSES_WHAT_FOLLOWS,
    Served,
)
from tests.servers.processes import GTHREAD, Server, Site, granian, gunicorn, hypercorn, runserver, uvicorn, wait_for

APPS = Path(__file__).parent / "apps"


@dataclass(frozen=True, slots=True)
class Way:
    """A server for an adapter's app.

    Attributes:
        server: how it is run.
        client: the module of `clients` that builds the app, where it has not the adapter's name.
        reads_chunked, takes_all_first, by_itself: see `Served`.
        several: whether several processes answer; they share their nonces in Redis.
    """

    server: Server
    client: str | None = None
    reads_chunked: bool = True
    takes_all_first: bool = False
    by_itself: frozenset[str] = frozenset()
    several: bool = False


SYNC = Way(gunicorn("staged:wsgi"), by_itself=frozenset({ONE_AT_A_TIME, MALFORMED_CHUNKS_RAISE}))
THREADS = Way(gunicorn("staged:wsgi", *GTHREAD), by_itself=frozenset({MALFORMED_CHUNKS_RAISE}))
UVICORN = Way(uvicorn("staged:asgi", "--http=h11"))
TWO_WORKERS = replace(
    UVICORN,
    server=uvicorn("staged:asgi", "--http=h11", "--workers=2"),
    several=True,
    by_itself=frozenset({EACH_PROCESS_FINDS_OUT}),
)
HTTPTOOLS = Way(uvicorn("staged:asgi", "--http=httptools"), by_itself=frozenset({REFUSES_UNKNOWN_METHODS}))
HYPERCORN = Way(hypercorn("staged:asgi"), by_itself=frozenset({REFUSES_WHAT_FOLLOWS}))
GRANIAN = Way(granian("staged:asgi"))
RUNSERVER = Way(runserver("django_settings"), reads_chunked=False)

WSGI = {"gunicorn sync": SYNC, "gunicorn gthread": THREADS}
ASGI = {"uvicorn": UVICORN, "uvicorn 2 workers": TWO_WORKERS, "hypercorn": HYPERCORN, "granian": GRANIAN}
WAYS: dict[str, dict[str, Way]] = {
    "django": {
        "runserver": RUNSERVER,
        **WSGI,
        "uvicorn": replace(UVICORN, client="django_async", takes_all_first=True),
    },
    "flask": WSGI,
    "fastapi": {**ASGI, "uvicorn httptools": HTTPTOOLS},
    # A router of FastAPI is one of Starlette: the other servers find nothing in it that they do not find above.
    "starlette": {"uvicorn": UVICORN},
}


def way(name: str) -> Way:
    """Return the way with a name such as `flask under gunicorn sync`."""
    adapter, _, server = name.partition(" under ")
    return WAYS[adapter][server]


@dataclass(slots=True)
class StagedSite(Site):
    """A server of `staged.py`."""

    client: str = ""

    def _contexts(self) -> dict[str, Any]:
        contexts = super(StagedSite, self)._contexts()
        contexts["env"] |= {
            "CONTRACT_CLIENT": self.client,
            "CONTRACT_FOLDER": str(self.folder),
            "DJANGO_SETTINGS_MODULE": "django_settings",
        }
        return contexts | {"cwd": APPS}


@dataclass(slots=True)
class ProcessClient:
    """An `AdapterClient` whose apps live in a server process, so handlers and settings must be picklable."""

    name: str
    folder: Path
    redis: tuple[str, str] | None = None
    _site: StagedSite = field(init=False)

    def __post_init__(self) -> None:
        self._site = StagedSite(self._way.server, self.folder, client=self._way.client or self._adapter)

    @property
    def _adapter(self) -> str:
        return self.name.partition(" under ")[0]

    @property
    def _way(self) -> Way:
        return way(self.name)

    @contextmanager
    def running(self) -> Iterator[ProcessClient]:
        """Run the server during the block."""
        try:
            self._site.start()
            yield self
            self._site.end()
        finally:
            self._site.close()

    @contextmanager
    def serve(self, handlers: Handlers, **settings: Any) -> Iterator[Served]:
        # The folder of a stage is named after its number, and contains its database.
        folder = Path(settings["inbox"].removeprefix("sqlite:///")).parent
        if self.redis is not None:
            url, prefix = self.redis
            settings.setdefault(
                "nonces", partial(RedisNonceStore, url, prefix=f"{prefix}{folder.parent.name}:{folder.name}:")
            )
        (folder / "stage.pickle").write_bytes(pickle.dumps((handlers, settings)))
        with _inbox(self._adapter, settings["inbox"]) as inbox:
            wait_for(lambda: self._is_built(folder))
            spool = Spool(settings["spool"]) if "spool" in settings else None
            yield Served(
                *self._site.address,
                _Stores(inbox, spool),
                path=f"/{folder.name}{PATH}",
                reads_chunked=self._way.reads_chunked,
                takes_all_first=self._way.takes_all_first,
                by_itself=self._way.by_itself,
                output=self._site.log,
            )
            if spool is not None:
                spool.close()

    def _is_built(self, folder: Path) -> bool:
        """Request the stage's page, and return whether all processes have built the stage."""
        host, port = self._site.address
        request = wire.head("GET", f"/{folder.name}{PATH}", [("Host", f"{host}:{port}"), ("Connection", "close")])
        assert wire.exchange((host, port), [request], method="GET").status == 405
        return len([*folder.glob("built-*")]) == (2 if self._way.several else 1)


@dataclass(frozen=True, slots=True)
class _Stores:
    inbox: Inbox
    spool: Spool | None


@contextmanager
def _inbox(adapter: str, url: str) -> Iterator[Inbox]:
    if adapter == "django":
        from envoyou_django.inbox.inbox import OrmInbox
        from tests.contract.clients.django import inbox_at

        with inbox_at(url):
            yield OrmInbox()
    else:
        inbox = SqlInbox(url)
        yield inbox
        inbox.close()
