"""The adapters for the contract suite: each app is built as a user would build it, behind a real HTTP server.

Each module of this package but two is one way into an adapter, and holds one object named `client`, which serves it in
the process of the test by one of `servers`; `process` serves the same apps under the servers that people run.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from envoyou_core import Handlers, Webhooks
from envoyou_core.inbox import Inbox
from envoyou_core.spool.spool import Spool

PATH = "/webhooks/envoyou"

# Behaviour of a server that does not depend on the app.
EACH_PROCESS_FINDS_OUT = "one process does not know yet what another has found out about an outage"
MALFORMED_CHUNKS_RAISE = "a malformed chunk is an exception for the code that reads the body, and the app answers"
ONE_AT_A_TIME = "while a request is on its way, the next one waits"
REFUSES_UNKNOWN_METHODS = "a method that is none of HTTP's is answered 400 before the app is asked"
REFUSES_WHAT_FOLLOWS = "a request that is followed by something that is none is answered 400"


class Stores(Protocol):
    """The stores that a test inspects. A `Webhooks` conforms."""

    @property
    def inbox(self) -> Inbox: ...

    @property
    def spool(self) -> Spool | None: ...


@dataclass(frozen=True, slots=True)
class Served:
    """A served app.

    Attributes:
        host: an address of the loopback interface.
        port: the TCP port.
        webhooks: the object that the app was built around; where that lives in another process, its stores.
        path: where webhooks are received, without the final slash.
        reads_chunked: whether the server understands chunked bodies; where it does not, they are answered 411.
        by_itself: what the server does before, or instead of, asking the app.
        output: what the server has written to its console, where it has one.
        takes_all_first: whether the framework itself receives a body to its end, however large, before it asks anyone.
    """

    host: str
    port: int
    webhooks: Stores
    path: str = PATH
    reads_chunked: bool = True
    by_itself: frozenset[str] = frozenset()
    output: Path | None = None
    takes_all_first: bool = False


@dataclass(frozen=True, slots=True)
class Built:
    """An app that is not served yet.

    Attributes:
        app: for WSGI or ASGI.
        webhooks: the object that it was built around.
    """

    app: Any
    webhooks: Webhooks


class AdapterClient(Protocol):
    """Builds and serves the app of one adapter."""

    name: str

    def serve(self, handlers: Handlers, **settings: Any) -> AbstractContextManager[Served]:
        """Serve an app whose `Webhooks` has these keyword settings, on a free port, until the block ends.

        `secret` and `inbox` are always among the settings. Where the adapter brings its own inbox, as Django does,
        `inbox` is the URL of its database.
        """


class BuildingClient(AdapterClient, Protocol):
    """A client whose app can also be served by other servers."""

    def build(self, handlers: Handlers, **settings: Any) -> AbstractContextManager[Built]:
        """Build the app without serving it. See `serve`."""


WAYS_IN = {
    "django": ("django", "django_async", "django_wsgi_entry", "django_asgi_entry"),
    "flask": ("flask", "flask_entry"),
}
"""The modules of this package for each adapter, if they are named differently."""


def ways_into(adapters: Iterable[str]) -> list[str]:
    """Return the names of all clients for these adapters, and of the core's two entries."""
    return ["asgi", "wsgi", *(name for adapter in adapters for name in WAYS_IN.get(adapter, (adapter,)))]


def load(name: str) -> Any:
    """Import and return the client of one adapter."""
    return import_module(f"{__name__}.{name}").client
