"""HTTP exchanges over a real socket, byte for byte."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPResponse
from typing import Any

HeaderValue = str | bytes
HeaderChanges = Mapping[str, HeaderValue | Sequence[HeaderValue] | None]
"""By name: a value, a list of values for a repeated header, or `None` for a header that is not sent."""

PATIENCE = 30.0
"""Seconds without a byte from the server after which a test fails."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Message
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


def head(method: str, target: str, headers: Iterable[tuple[str, HeaderValue]]) -> bytes:
    """Encode the request line and headers, text as UTF-8."""
    lines = [f"{method} {target} HTTP/1.1".encode()]
    lines += [name.encode() + b": " + _octets(value) for name, value in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def pairs(headers: HeaderChanges) -> list[tuple[str, HeaderValue]]:
    """Return the headers to send."""
    found: list[tuple[str, HeaderValue]] = []
    for name, value in headers.items():
        if value is None:
            continue
        values = [value] if isinstance(value, str | bytes) else value
        found += [(name, one) for one in values]
    return found


def exchange(address: tuple[str, int], pieces: Iterable[bytes], *, method: str = "POST") -> Answer:
    """Send all `pieces` before reading the response, as a simple sender does."""
    with socket.create_connection(address, timeout=PATIENCE) as connection:
        for piece in pieces:
            connection.sendall(piece)
        return read_answer(connection, method=method)


def read_answer(connection: socket.socket, *, method: str = "POST") -> Answer:
    """Read one complete response."""
    response = HTTPResponse(connection, method=method)
    try:
        response.begin()
        return Answer(response.status, response.msg, response.read())
    finally:
        response.close()


def told_to_continue(connection: socket.socket) -> bool:
    """Read an interim response that requests the body, and return whether there was one."""
    if connection.recv(13, socket.MSG_PEEK | socket.MSG_WAITALL) != b"HTTP/1.1 100 ":
        return False
    read = b""
    while not read.endswith(b"\r\n\r\n"):
        read += connection.recv(1)
    return True


def chunked(body: bytes, *, size: int) -> list[bytes]:
    """Encode `body` in chunks."""
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return [*(b"%x\r\n%s\r\n" % (len(part), part) for part in parts), b"0\r\n\r\n"]


def _octets(value: HeaderValue) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
