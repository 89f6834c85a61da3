"""A server on loopback that sends what a test tells it, byte by byte, and keeps the requests."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

CUT = b""
"""An answer: the connection is closed after the request, without a byte."""

HANG = None
"""An answer: nothing, until the client gives up."""


@dataclass(frozen=True)
class Trickle:
    """An answer that comes a byte at a time and never ends."""

    head: bytes
    interval: float = 0.02


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Server:
    """Answers each connection with the next of `answers`, and closes it."""

    answers: list = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    reads: bool = True
    """Whether a request is read before the connection is closed."""

    def __post_init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def stop(self):
        self._stopped.set()
        # Accepting is not ended by closing the socket.
        with socket.create_connection(self._listener.getsockname()):
            pass
        self._thread.join(10)
        self._listener.close()
        assert not self._thread.is_alive()

    def _serve(self):
        while True:
            connection, _ = self._listener.accept()
            with connection:
                if self._stopped.is_set():
                    return
                connection.settimeout(10)
                if self.reads:
                    self.requests.append(read_request(connection))
                answer = self.answers.pop(0)
                try:
                    self._answer(connection, answer)
                except OSError:
                    continue  # the client has gone

    def _answer(self, connection, answer):
        if answer is HANG:
            connection.recv(1)
        elif isinstance(answer, Trickle):
            connection.sendall(answer.head)
            while not self._stopped.wait(answer.interval):
                connection.sendall(b" ")
        else:
            connection.sendall(answer)


def read_request(connection):
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65_536)
    head, _, body = received.partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    method, path, _ = line.split(" ")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65_536)
    return Request(method, path, headers, body)


@contextmanager
def serving(*answers, **options) -> Iterator[Server]:
    server = Server(list(answers), **options)
    try:
        yield server
    finally:
        server.stop()


def answer(status, body=b"", content_type="application/json", **headers):
    """A whole response."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Something", f"Content-Length: {len(content)}", "Connection: close"]
    if content_type:
        lines.append(f"Content-Type: {content_type}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content
