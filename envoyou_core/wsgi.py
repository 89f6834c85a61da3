"""WSGI: a request's body and headers as the core wants them, and an entry in front of any application."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from envoyou_core.bodies import DisconnectedError, incomplete, unreadable
from envoyou_core.errors import LengthRequiredError, PayloadTooLargeError, UnreadableBodyError, WebhookError
from envoyou_core.http import CLIENT_CLOSED_REQUEST, WebhookRequest, WebhookResponse, content_length, path_variants
from envoyou_core.webhooks import Webhooks

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["webhooks_entry"]

CHUNK_SIZE = 65_536
DRAIN_LIMIT = 8 * 1_048_576
"""Bytes of a refused body that are read and thrown away: a sender that is cut off while it sends does not see why."""


class ReadableBody(Protocol):
    """A request's body, still unread."""

    def read(self, size: int = ..., /) -> bytes:
        """Up to `size` bytes, none at the end."""


class CheckedInput:
    """A server's `wsgi.input` whose failures, of whatever class, are raised as refusals.

    Args:
        stream: what the server provides.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, none at the end.

        Raises:
            WebhookError: 400 or 499.
        """
        return self._checked(self._stream.read, size)

    def readline(self, size: int = -1, /) -> bytes:
        """One line, as `read`."""
        return self._checked(self._stream.readline, size)

    def readlines(self, hint: int = -1, /) -> list[bytes]:
        """All lines, as `read`."""
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line

    def __getattr__(self, name: str) -> Any:
        # The stream's own, such as `seek` of one that middleware has buffered; but no way to read that is not checked.
        if name.startswith("read"):
            raise AttributeError(name)
        return getattr(self._stream, name)

    def _checked(self, read: Callable[[int], bytes], size: int) -> bytes:
        try:
            return read(size)
        except Exception as error:
            raise unreadable(error) from None


def webhooks_entry(app: WSGIApplication, webhooks: Webhooks, *, path: str = "/webhooks/envoyou") -> WSGIApplication:
    """An application that receives webhooks at `path` and leaves everything else to `app`.

    What comes to `path`, with or without a final slash, reaches neither the routes nor the middleware of `app`. The
    worker starts with the first request of all, in each process. See the guide, "Setting Up Webhooks".

    Args:
        app: what is served.
        webhooks: who receives.
        path: as `app` would see it: from where it is mounted, beginning with a slash.

    Raises:
        ConfigurationError: `path` does not begin with a slash, or a setting of `webhooks` cannot work as given.
    """
    # Names come as octets, each a character of its own.
    paths = {form.encode().decode("latin-1") for form in path_variants(path)}
    # Where `webhooks` is made on first use, what is wrong with it stops the server rather than its first event.
    _ = webhooks.name

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        webhooks.ensure_worker()
        if environ.get("PATH_INFO", "") not in paths:
            return app(environ, start_response)
        response = receive_wsgi(webhooks, environ, in_context=True)
        length = ("Content-Length", str(len(response.body)))
        start_response(f"{response.status} {_phrase(response.status)}", [*response.headers, length])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [response.body]

    return application


def _phrase(status: int) -> str:
    return "Client Closed Request" if status == CLIENT_CLOSED_REQUEST else HTTPStatus(status).phrase


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
        webhooks: who receives.
        environ: the request's environment.
        body: the raw body, where someone has read it already; otherwise it is read from the environment.
        max_body_size: bytes, where the framework has a bound of its own; the smaller of the two bounds holds.
        in_context: see `Webhooks.receive`.
    """
    try:
        request = read_wsgi(webhooks, environ, body, max_body_size=max_body_size)
    except WebhookError as error:
        return webhooks.refuse(error, WebhookRequest.from_wsgi(environ, b""))
    return webhooks.receive(request, in_context=in_context)


def read_wsgi(
    webhooks: Webhooks,
    environ: Mapping[str, Any],
    body: bytes | None = None,
    *,
    max_body_size: int | None = None,
) -> WebhookRequest:
    """What the core needs of a WSGI request whose shape is right, its body read.

    Args:
        webhooks: whose bounds they are.
        environ: the request's environment.
        body: the raw body, where someone has read it already; otherwise it is read from the environment.
        max_body_size: bytes, where the framework has a bound of its own; the smaller of the two bounds holds.

    Raises:
        WebhookError: 400, 405, 411, 413, 415 or 499; up to `DRAIN_LIMIT` bytes of the refused body have been read and
            thrown away.
    """
    stream = CheckedInput(environ["wsgi.input"])
    limit = webhooks.max_body_size if max_body_size is None else min(max_body_size, webhooks.max_body_size)
    length: int | None = None
    try:
        webhooks.check_shape(
            str(environ.get("REQUEST_METHOD", "")),
            str(environ.get("CONTENT_TYPE", "")).encode("latin-1", "replace"),
            0 if body is None else len(body),
        )
        if body is None:
            length = _length(environ)
            body = _read(stream, length, limit)
        elif len(body) > limit:
            raise _too_large(limit)
    except (DisconnectedError, UnreadableBodyError):
        # Nothing more can be read.
        raise
    except WebhookError:
        if body is None:
            _drain(stream, environ)
        raise
    return WebhookRequest.from_wsgi(environ, body)


def _length(environ: Mapping[str, Any]) -> int | None:
    """How many bytes may be read; `None` if the server marks the end of the body.

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
        # Chunks override a length that is sent with them, and HTTP/2 needs neither.
        return None
    if declared is None and chunked:
        # PEP 3333 forbids reading on: neither the server nor the application would see the end.
        raise LengthRequiredError
    return declared or 0


def _read(stream: ReadableBody, length: int | None, limit: int) -> bytes:
    if length is not None and length > limit:
        raise _too_large(limit)
    body = b"".join(_chunks(stream, limit + 1 if length is None else length))
    if len(body) > limit:
        raise _too_large(limit)
    if length is not None and len(body) < length:
        raise incomplete(len(body), length)
    return body


def _drain(stream: ReadableBody, environ: Mapping[str, Any]) -> None:
    """Throw away the rest of a refused body. If that fails, the request is refused for the first reason."""
    with suppress(WebhookError):
        length = _length(environ)
        for _ in _chunks(stream, DRAIN_LIMIT if length is None else min(length, DRAIN_LIMIT)):
            pass


def _chunks(stream: ReadableBody, size: int) -> Iterator[bytes]:
    """The next `size` bytes of the body, or as many as arrive.

    Raises:
        WebhookError: 400 or 499.
    """
    while size > 0:
        chunk = stream.read(min(size, CHUNK_SIZE))
        if not chunk:
            return
        size -= len(chunk)
        yield chunk


def _too_large(limit: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(f"the body is larger than {limit} bytes")
