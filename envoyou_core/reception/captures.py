"""Captures of refused requests: HTTP messages in files, from which `envoyou verify` finds out why they were refused."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from envoyou_core.errors import ConfigurationError, WebhookError
from envoyou_core.http import WebhookRequest

__all__ = ["Capture", "CaptureDirectory", "capture_directory"]

MAX_CAPTURES: Final = 100
"""Files in a directory. The oldest are deleted."""

MAX_CAPTURED_BODY: Final = 262_144
"""Bytes. A request with a larger body is not captured, because a part of it would verify with no secret."""

MAX_CAPTURED_HEADERS: Final = 16_384
"""Bytes."""

RECEIVED_AT: Final = "X-Capture-Received-At"
REASON: Final = "X-Capture-Reason"
REMOVED: Final = b"[removed]"

_OWN_HEADERS: Final = frozenset({RECEIVED_AT.lower(), REASON.lower()})
_SHOWN_HEADERS: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "date",
        "host",
        "transfer-encoding",
        "user-agent",
        "via",
    }
)
_match_signature = re.compile(rb"(v1,[0-9a-fA-F]{64})(,\s*v1,[0-9a-fA-F]{64})*").fullmatch
_match_name = re.compile(r"\d{8}T\d{6}\.\d{6}Z-[a-z_]+-\d+\.http").fullmatch
_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")


@dataclass(frozen=True, slots=True, repr=False)
class Capture:
    """A captured request.

    Attributes:
        method: the HTTP method.
        path: the path, as far as it is known.
        headers: names and values, in the order in which they came.
        body: the raw body.
        received_at: epoch seconds; `None` if the capture does not say.
    """

    method: str
    path: str
    headers: tuple[tuple[str, bytes], ...]
    body: bytes
    received_at: float | None = None

    def __repr__(self) -> str:
        return f"Capture({self.method!r}, {len(self.body)} bytes)"

    def request(self) -> WebhookRequest:
        """Return it as a request."""
        headers = [(name.encode("latin-1"), value) for name, value in self.headers]
        return WebhookRequest.from_http(self.method, headers, self.body)

    def values(self, name: str) -> list[bytes]:
        """Return the values of a header, in any case."""
        return [value for each, value in self.headers if each.lower() == name.lower()]

    @classmethod
    def from_bytes(cls, content: bytes) -> Capture:
        """Parse an HTTP message: a request line, headers, an empty line, and the body as it is.

        Raises:
            ConfigurationError: it is not an HTTP request.
        """
        end = _END_OF_HEAD.search(content)
        head = content if end is None else content[: end.start()]
        request_line, *lines = head.split(b"\n")
        words = request_line.decode("latin-1").split()
        if len(words) < 2 or not words[0].isalpha():
            raise ConfigurationError(
                "the capture must begin with a request line such as POST /webhooks/envoyou HTTP/1.1, then headers, an "
                "empty line and the body"
            )
        headers = tuple(_headers(lines))
        received = next((value for name, value in headers if name.lower() == RECEIVED_AT.lower()), None)
        return cls(
            words[0].upper(),
            words[1],
            tuple(header for header in headers if header[0].lower() not in _OWN_HEADERS),
            b"" if end is None else content[end.end() :],
            None if received is None else _epoch_seconds(received),
        )


class CaptureDirectory:
    """A directory to which refused requests are written: at most 100 files, each of at most 272 KiB.

    Files are readable by their owner only. Values of headers that may be secret are removed: those of
    `endpoint_headers`, and all but the headers of the guide and a few that describe the body and the proxies.

    Args:
        path: the directory; it is made when it is needed.
        secret_headers: the names of headers whose values are removed in any case.
    """

    def __init__(self, path: str | os.PathLike[str], secret_headers: Collection[str] = ()) -> None:
        self._path = Path(path)
        self._secret_headers = frozenset(name.lower() for name in secret_headers)

    def write(self, request: WebhookRequest, error: WebhookError, *, now: float) -> None:
        """Write a request that was refused with `error`, and delete the oldest files if there are too many.

        Raises:
            OSError: the file cannot be written.
        """
        if len(request.body) > MAX_CAPTURED_BODY:
            return
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        at = datetime.fromtimestamp(now, UTC)
        file = self._path / f"{at:%Y%m%dT%H%M%S.%fZ}-{error.reason}-{os.getpid()}.http"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        with suppress(FileExistsError), os.fdopen(os.open(file, flags, 0o600), "wb") as output:
            output.write(self._message(request, error, now))
        captures = sorted(each for each in self._path.iterdir() if _match_name(each.name))
        for oldest in captures[:-MAX_CAPTURES]:
            # Another process may have deleted it.
            oldest.unlink(missing_ok=True)

    def _message(self, request: WebhookRequest, error: WebhookError, now: float) -> bytes:
        path = (request.path or "/").replace(" ", "%20").encode("ascii", "replace")
        lines = [
            request.method.encode("ascii", "replace") + b" " + _line(path) + b" HTTP/1.1",
            f"{RECEIVED_AT}: {now:.3f}".encode(),
            f"{REASON}: {error.reason}".encode(),
        ]
        lines += [name + b": " + value for name, value in self._shown(request)]
        head = b"\r\n".join(lines)
        if len(head) > MAX_CAPTURED_HEADERS:
            head = head[:MAX_CAPTURED_HEADERS].rpartition(b"\r\n")[0]
        return head + b"\r\n\r\n" + request.body

    def _shown(self, request: WebhookRequest) -> Iterator[tuple[bytes, bytes]]:
        for given_name, given_value in request.headers:
            name, value = _as_bytes(given_name), _as_bytes(given_value)
            key = name.decode("latin-1").lower()
            is_shown = key in _SHOWN_HEADERS or "envoyou" in key or "timestamp" in key or _match_signature(value)
            yield _line(name), _line(value) if is_shown and key not in self._secret_headers else REMOVED


def capture_directory(setting: object, secret_headers: Collection[str] | None) -> CaptureDirectory | None:
    """Return the directory of the setting `capture_rejected`; `None` if it is off.

    Raises:
        ConfigurationError: it is not a path.
    """
    if setting is None:
        return None
    if not isinstance(setting, str | os.PathLike) or not os.fspath(setting):
        raise ConfigurationError(f"capture_rejected must be the path of a directory, got {type(setting).__name__}")
    return CaptureDirectory(setting, secret_headers or ())


def _as_bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1", "replace")


def _line(value: bytes) -> bytes:
    return value.replace(b"\r", b" ").replace(b"\n", b" ")


def _headers(lines: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    for line in lines:
        name, separator, value = line.partition(b":")
        if not separator:
            raise ConfigurationError(f"expected a header such as Content-Type: application/json in line {line[:40]!r}")
        yield name.decode("latin-1").strip(), value.strip(b" \t\r")


def _epoch_seconds(value: bytes) -> float | None:
    with suppress(ValueError):
        return float(value)
    return None
