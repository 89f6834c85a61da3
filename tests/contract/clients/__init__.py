"""How the contract suite reaches an adapter: its app, built as a user would, behind a real HTTP server.

Each module of this package is one way into an adapter, and holds one object named `client`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from envoyou_core import Handlers, Webhooks

PATH = "/webhooks/envoyou"


@dataclass(frozen=True, slots=True)
class Served:
    """An app that is being served on this machine.

    Attributes:
        host: an address of the loopback interface.
        port: the TCP port.
        path: where webhooks are received, without the final slash.
        webhooks: the object that the app was built around.
        database: the SQLite file behind an inbox that the adapter brings itself, so that a test can lock it.
        reads_chunked: whether the server understands chunked bodies; where it does not, they are answered 411.
        takes_all_first: whether the framework itself receives a body to its end, however large, before it asks anyone.
    """

    host: str
    port: int
    webhooks: Webhooks
    path: str = PATH
    database: Path | None = None
    reads_chunked: bool = True
    takes_all_first: bool = False


class AdapterClient(Protocol):
    """Builds and serves the app of one adapter."""

    name: str

    def serve(self, handlers: Handlers, **settings: Any) -> AbstractContextManager[Served]:
        """Serve an app whose `Webhooks` has these keyword settings, on a free port, until the block ends.

        `secret` is always among the settings. Where the adapter brings its own inbox, as Django does, `inbox` is left
        out of account, and `database` names the file of that one.
        """


WAYS_IN = {
    "django": ("django", "django_async", "django_wsgi_entry", "django_asgi_entry"),
    "flask": ("flask", "flask_entry"),
}
"""The modules of this package for each adapter, where it is not the one of its name."""


def ways_into(adapters: Iterable[str]) -> list[str]:
    """The names of all clients that reach these adapters, and the core's own two."""
    return ["asgi", "wsgi", *(name for adapter in adapters for name in WAYS_IN.get(adapter, (adapter,)))]


def load(name: str) -> AdapterClient:
    """The client of one adapter, imported only when it is asked for."""
    client: AdapterClient = import_module(f"{__name__}.{name}").client
    return client
