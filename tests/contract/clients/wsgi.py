"""The core's WSGI entry, wrapping an application without any routes, under the standard library's server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from envoyou_core import Handlers, Webhooks
from envoyou_core.wsgi import webhooks_entry
from tests.contract.clients import PATH, Served
from tests.contract.clients.servers import HOST, wsgiref_server


class WsgiClient:
    name = "wsgi"

    @contextmanager
    def serve(self, handlers: Handlers, **settings: Any) -> Iterator[Served]:
        webhooks = Webhooks(**settings)
        webhooks.include(handlers)
        with wsgiref_server(webhooks_entry(not_found, webhooks, path=PATH)) as port:
            yield Served(HOST, port, webhooks, reads_chunked=False)
        webhooks.stop()
        webhooks.inbox.close()


def not_found(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    start_response("404 Not Found", [])
    return []


client = WsgiClient()
