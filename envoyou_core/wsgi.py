"""WSGI: reads requests, and wraps any application so that it receives webhooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from envoyou_core.endpoints import mark_endpoint
from envoyou_core.errors import LengthRequiredError, UnreadableBodyError, WebhookError
from envoyou_core.health.http import probe_in
from envoyou_core.http import (
    CLIENT_CLOSED_REQUEST,
    RequestLimits,
    WebhookRequest,
    WebhookResponse,
    content_length,
    path_variants,
)
from envoyou_core.unreadable_bodies import DisconnectedError, as_body_error, incomplete_body
from envoyou_core.webhooks import Webhooks

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["health_app", "webhooks_entry"]

CHUNK_SIZE = 65_536
DRAIN_LIMIT = 8 * 1_048_576
"""Bytes of a refused body that are read and discarded, because a sender that is cut off does not see the response."""


class ReadableBody(Protocol):
    """A stream that a request's body is read from."""

    def read(self, size: int = ..., /) -> bytes:
        """Read up to `size` bytes; empty at the end of the body."""


class CheckedInput:
    """A `wsgi.input` that raises a `WebhookError` for any exception of the server's stream.

    Args:
        stream: the server's `wsgi.input`.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        """Read up to `size` bytes; empty at the end of the body.

        Raises:
            WebhookError: 400 or 499.
        """
        return self._checked(self._stream.read, size)

    def readline(self, size: int = -1, /) -> bytes:
        """Read one line. See `read`."""
        return self._checked(self._stream.readline, size)

    def readlines(self, hint: int = -1, /) -> list[bytes]:
        """Read all lines. See `read`."""
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line

    def __getattr__(self, name: str) -> Any:
        # Offer other methods of the stream, such as `seek` if middleware has buffered it, but no unchecked way to read.
        if name.startswith("read"):
            raise AttributeError(name)
        return getattr(self._stream, name)

    def _checked(self, read: Callable[[int], bytes], size: int) -> bytes:
        try:
            return read(size)
        except Exception as error:
            raise as_body_error(error) from None


def webhooks_entry(app: WSGIApplication, webhooks: Webhooks, *, path: str = "/webhooks/envoyou") -> WSGIApplication:
    """Wrap `app` so that webhooks are received at `path`; all other requests are passed on to `app`.

    Requests to `path`, with or without a final slash, bypass the routes and the middleware of `app`. In each process,
    the worker starts with the first request to any path. See the guide, "Setting Up Webhooks".

    Args:
        app: the application to wrap.
        webhooks: the webhooks to receive.
        path: relative to where `app` is mounted, beginning with a slash.

    Raises:
        ConfigurationError: `path` does not begin with a slash, or a setting of `webhooks` is invalid.
    """
    # WSGI represents each byte of the path as one character.
    paths = {form.encode().decode("latin-1") for form in path_variants(path)}
    # If `webhooks` is created lazily, a wrong setting must fail at start-up, not at the first event.
    _ = webhooks.name

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        webhooks.ensure_worker()
        if environ.get("PATH_INFO", "") not in paths:
            return app(environ, start_response)
        return _send(receive_wsgi(webhooks, environ, in_context=True), environ, start_response)

    mark_endpoint(application, lambda: webhooks, path=path)
    return application


def health_app(webhooks: Webhooks) -> WSGIApplication:
    """Return a WSGI application with the health probes at `/live`, `/ready` and `/worker`, to be mounted.

    They answer 200 or 503, with a small JSON object. It starts no worker.

    Args:
        webhooks: the webhooks whose health it is.
    """

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        probe = probe_in(environ.get("PATH_INFO", ""))
        return _send(webhooks.probes.respond(environ["REQUEST_METHOD"], probe), environ, start_response)

    return application


def _send(response: WebhookResponse, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    length = ("Content-Length", str(len(response.body)))
    start_response(_status_line(response.status), [*response.headers, length])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [response.body]


@cache
def _status_line(status: int) -> str:
    phrase = "Client Closed Request" if status == CLIENT_CLOSED_REQUEST else HTTPStatus(status).phrase
    return f"{status} {phrase}"


def receive_wsgi(
    webhooks: Webhooks,
    environ: Mapping[str, Any],
    body: bytes | None = None,
    *,
    max_body_size: int | None = None,
    in_context: bool = False,
) -> WebhookResponse:
    """Answer a WSGI request.

    Args:
        webhooks: the webhooks to receive.
        environ: the request's environment.
        body: the raw body, if it has been read already; it is read from the environment otherwise.
        max_body_size: the framework's own limit in bytes, if it has one; the smaller limit applies.
        in_context: see `Webhooks.receive`.
    """
    limits = webhooks.request_limits
    if max_body_size is not None:
        limits = RequestLimits(min(max_body_size, limits.max_body_size))
    try:
        request = read_wsgi(limits, environ, body)
    except WebhookError as error:
        return webhooks.refuse(error, WebhookRequest.from_wsgi(environ, b""))
    return webhooks.receive(request, in_context=in_context)


def read_wsgi(limits: RequestLimits, environ: Mapping[str, Any], body: bytes | None = None) -> WebhookRequest:
    """Check a WSGI request and read its body.

    Args:
        limits: what the request must satisfy before its body is read.
        environ: the request's environment.
        body: the raw body, if it has been read already; it is read from the environment otherwise.

    Raises:
        WebhookError: 400, 405, 411, 413, 415 or 499; up to `DRAIN_LIMIT` bytes of the refused body have been read and
            discarded.
    """
    stream = CheckedInput(environ["wsgi.input"])
    try:
        limits.check(
            str(environ.get("REQUEST_METHOD", "")),
            str(environ.get("CONTENT_TYPE", "")).encode("latin-1", "replace"),
            0 if body is None else len(body),
        )
        if body is None:
            body = _read(stream, _length(environ), limits)
    except (DisconnectedError, UnreadableBodyError):
        # The rest of the body cannot be read either.
        raise
    except WebhookError:
        if body is None:
            _drain(stream, environ)
        raise
    return WebhookRequest.from_wsgi(environ, body)


def _length(environ: Mapping[str, Any]) -> int | None:
    """Return how many bytes may be read; `None` if the server signals the end of the body.

    Raises:
        UnreadableBodyError: the Content-Length is malformed.
        LengthRequiredError: the body is sent in chunks, and the server does not decode them.
    """
    value = str(environ.get("CONTENT_LENGTH") or "").strip().encode("latin-1", "replace")
    declared = content_length(value)
    if declared is None and value:
        raise UnreadableBodyError(detail="malformed Content-Length")
    chunked = bool(environ.get("HTTP_TRANSFER_ENCODING"))
    if environ.get("wsgi.input_terminated") and (chunked or declared is None):
        # Chunks take precedence over a length that is sent with them, and HTTP/2 needs neither.
        return None
    if declared is None and chunked:
        # PEP 3333 forbids reading past a declared length, and a read without one might never return.
        raise LengthRequiredError
    return declared or 0


def _read(stream: ReadableBody, length: int | None, limits: RequestLimits) -> bytes:
    if length is not None and length > limits.max_body_size:
        raise limits.too_large()
    body = b"".join(_chunks(stream, limits.max_body_size + 1 if length is None else length))
    if len(body) > limits.max_body_size:
        raise limits.too_large()
    if length is not None and 0 < len(body) < length:
        raise incomplete_body(len(body), length)
    # Without any byte, middleware has read the body, or the sender has left. The first one is to be found out: the
    # empty body is refused as unsigned, and captured.
    return body


def _drain(stream: ReadableBody, environ: Mapping[str, Any]) -> None:
    """Read and discard the rest of a refused body. The original refusal stands if that fails."""
    with suppress(WebhookError):
        length = _length(environ)
        for _ in _chunks(stream, DRAIN_LIMIT if length is None else min(length, DRAIN_LIMIT)):
            pass


def _chunks(stream: ReadableBody, size: int) -> Iterator[bytes]:
    """Yield chunks of the body, up to `size` bytes in total.

    Raises:
        WebhookError: 400 or 499.
    """
    while size > 0:
        chunk = stream.read(min(size, CHUNK_SIZE))
        if not chunk:
            return
        size -= len(chunk)
        yield chunk
