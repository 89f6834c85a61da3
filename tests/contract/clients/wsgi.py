"""The core's own WSGI entry, bare, under the standard library's server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from envoyou_core import Handlers, Webhooks
from envoyou_core.wsgi import receive_wsgi
from tests.contract.clients import PATH, Served
from tests.contract.clients.servers import HOST, wsgiref_server


class WsgiClient:
    name = "wsgi"

    @contextmanager
    def serve(self, handlers: Handlers, **settings: Any) -> Iterator[Served]:
        webhooks = Webhooks(**settings)
        webhooks.include(handlers)
        with wsgiref_server(_application(webhooks)) as port:
            yield Served(HOST, port, webhooks, reads_chunked=False)
        webhooks.stop()
        webhooks.inbox.close()


def _application(webhooks: Webhooks) -> Callable[..., Iterable[bytes]]:
    def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        if environ["PATH_INFO"].removesuffix("/") != PATH:
            start_response("404 Not Found", [])
            return []
        response = receive_wsgi(webhooks, environ)
        start_response(f"{response.status} {HTTPStatus(response.status).phrase}", list(response.headers))
        return [response.body]

    return application


client = WsgiClient()
