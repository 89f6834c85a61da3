"""Real HTTP servers in a thread of the test's process, on a free port of the loopback interface."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Literal
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.simple_server import make_server as make_wsgiref_server

HOST = "127.0.0.1"
PATIENCE = 30.0
"""Seconds within which a server must start, or end."""


@contextmanager
def uvicorn_server(app: Callable[..., Any], *, lifespan: Literal["on", "auto"] = "on") -> Iterator[int]:
    """Serve an ASGI application with uvicorn, including its lifespan; yield the port.

    With `auto`, it may be an application that knows of no lifespan.
    """
    import uvicorn

    config = uvicorn.Config(app, lifespan=lifespan, http="h11", log_config=None, timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    with socket.create_server((HOST, 0)) as listening, _running(lambda: server.run([listening])) as thread:
        deadline = time.monotonic() + PATIENCE
        while not server.started and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.005)
        if not server.started:
            raise RuntimeError("uvicorn did not start")
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True


@contextmanager
def werkzeug_server(app: Callable[..., Any]) -> Iterator[int]:
    """Serve a WSGI application with Werkzeug's threaded server; yield the port."""
    from werkzeug.serving import make_server

    with serving(make_server(HOST, 0, app, threaded=True)) as port:
        yield port


@contextmanager
def wsgiref_server(app: Callable[..., Any]) -> Iterator[int]:
    """Serve a WSGI application with the standard library's server, with a thread per request; yield the port."""
    server = make_wsgiref_server(HOST, 0, app, server_class=_ThreadedServer, handler_class=_SilentHandler)
    with serving(server) as port:
        yield port


class _ThreadedServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64


class _SilentHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(server: TCPServer) -> Iterator[int]:
    """Run a server of the standard library's kind during the block; yield the port."""
    with server, _running(lambda: server.serve_forever(poll_interval=0.02)):
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()


@contextmanager
def _running(target: Callable[[], object]) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=target, name="test-server", daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(PATIENCE)
    if thread.is_alive():
        raise RuntimeError("the server did not end")
