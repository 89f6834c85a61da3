"""WSGI: a request's body and headers as the core wants them, and an entry in front of any application."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from envoyou_core.errors import LengthRequiredError, PayloadTooLargeError, WebhookError
from envoyou_core.http import WebhookRequest, WebhookResponse, content_length, path_variants
from envoyou_core.webhooks import Webhooks

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["DRAIN_LIMIT", "ReadableBody", "read_wsgi", "receive_wsgi", "webhooks_entry"]

CHUNK_SIZE = 65_536
DRAIN_LIMIT = 8 * 1_048_576
"""Bytes of a refused body that are read and thrown away: a sender that is cut off while it sends does not see why."""


class ReadableBody(Protocol):
    """A request's body, still unread."""

    def read(self, size: int = ..., /) -> bytes:
        """Up to `size` bytes, none at the end."""


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
        start_response(f"{response.status} {HTTPStatus(response.status).phrase}", [*response.headers, length])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [response.body]

    return application


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
        return webhooks.refuse(error)
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
        WebhookError: 405, 411, 413 or 415; up to `DRAIN_LIMIT` bytes of the refused body have been thrown away.
    """
    stream: ReadableBody = environ["wsgi.input"]
    length = content_length(str(environ.get("CONTENT_LENGTH") or "").encode("latin-1", "replace"))
    ends_by_itself = bool(environ.get("wsgi.input_terminated"))
    limit = webhooks.max_body_size if max_body_size is None else min(max_body_size, webhooks.max_body_size)
    size = (length or 0) if body is None else len(body)
    try:
        webhooks.check_shape(
            str(environ.get("REQUEST_METHOD", "")),
            str(environ.get("CONTENT_TYPE", "")).encode("latin-1", "replace"),
            size,
        )
        if size > limit:
            raise _too_large(limit)
        if body is None:
            body = _read(stream, length, ends_by_itself, limit)
    except WebhookError:
        if body is None and (length is not None or ends_by_itself):
            for _ in _chunks(stream, DRAIN_LIMIT if length is None else min(length, DRAIN_LIMIT)):
                pass
        raise
    return WebhookRequest.from_wsgi(environ, body)


def _read(stream: ReadableBody, length: int | None, ends_by_itself: bool, limit: int) -> bytes:
    if length is None and not ends_by_itself:
        # PEP 3333 forbids reading on: the server may never see the end, and neither would we.
        raise LengthRequiredError
    body = b"".join(_chunks(stream, limit + 1 if length is None else length))
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _chunks(stream: ReadableBody, size: int) -> Iterator[bytes]:
    """The next `size` bytes of the body, or as many as come: one that breaks off cannot be authenticated."""
    while size > 0:
        try:
            chunk = stream.read(min(size, CHUNK_SIZE))
        except OSError:
            return
        if not chunk:
            return
        size -= len(chunk)
        yield chunk


def _too_large(limit: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(f"the body is larger than {limit} bytes")
