"""The port of a worker process that answers health probes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from envoyou_core.errors import ConfigurationError
from envoyou_core.health.http import probe_in
from envoyou_core.health.probes import Probes

__all__ = ["serve_probes"]

TIMEOUT = 10.0
"""Seconds that a client may take for its request."""


@contextmanager
def serve_probes(probes: Probes, host: str, port: int) -> Iterator[int]:
    """Answer probes in threads of their own until the block ends; yields the port. `worker` is this process's own.

    Args:
        probes: answers them.
        host: the address to listen at; empty for all.
        port: 0 takes a free one.

    Raises:
        ConfigurationError: the address cannot be used.
    """
    try:
        server = _Server((host, port), _handler_of(probes))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(f"the health port {host}:{port} cannot be used: {reason}") from error
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="envoyou-health-port", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a client that has gone."""


def _handler_of(probes: Probes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = TIMEOUT

        def answer(self) -> None:
            """Answer one request."""
            response = probes.respond(self.command, probe_in(self.path.partition("?")[0]), own_worker=True)
            self.send_response_only(response.status)
            for name, value in (*response.headers, ("Content-Length", str(len(response.body)))):
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(response.body)

        def log_message(self, format: str, *args: object) -> None:
            """Log no probe."""

    for method in ("GET", "HEAD", "POST", "PUT", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.answer)
    return Handler
