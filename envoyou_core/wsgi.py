"""WSGI: a request's body and headers as the core wants them. No framework is needed for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from envoyou_core.errors import LengthRequiredError, PayloadTooLargeError, WebhookError
from envoyou_core.http import WebhookRequest, WebhookResponse
from envoyou_core.webhooks import Webhooks

__all__ = ["DRAIN_LIMIT", "ReadableBody", "receive_wsgi"]

CHUNK_SIZE = 65_536
DRAIN_LIMIT = 8 * 1_048_576
"""Bytes of a refused body that are read and thrown away: a sender that is cut off while it sends does not see why."""


class ReadableBody(Protocol):
    """A request's body, still unread."""

    def read(self, size: int = ..., /) -> bytes:
        """Up to `size` bytes, none at the end."""


def receive_wsgi(webhooks: Webhooks, environ: Mapping[str, Any], body: bytes | None = None) -> WebhookResponse:
    """Answer a WSGI request.

    Args:
        webhooks: who receives.
        environ: the request's environment.
        body: the raw body, where someone has read it already; otherwise it is read from the environment, up to
            `max_body_size` bytes.
    """
    stream: ReadableBody = environ["wsgi.input"]
    length = _content_length(environ)
    ends_by_itself = bool(environ.get("wsgi.input_terminated"))
    try:
        webhooks.check_shape(
            str(environ.get("REQUEST_METHOD", "")),
            str(environ.get("CONTENT_TYPE", "")).encode("latin-1", "replace"),
            length or 0 if body is None else len(body),
        )
        if body is None:
            body = _read(stream, length, ends_by_itself, webhooks.max_body_size)
    except WebhookError as error:
        if body is None and (length is not None or ends_by_itself):
            _throw_away(stream, DRAIN_LIMIT if length is None else min(length, DRAIN_LIMIT))
        return webhooks.refuse(error)
    return webhooks.receive(WebhookRequest.from_wsgi(environ, body))


def _content_length(environ: Mapping[str, Any]) -> int | None:
    value = str(environ.get("CONTENT_LENGTH") or "")
    return int(value) if value.isascii() and value.isdigit() else None


def _read(stream: ReadableBody, length: int | None, ends_by_itself: bool, limit: int) -> bytes:
    if length is None and not ends_by_itself:
        # PEP 3333 forbids reading on: the server may never see the end, and neither would we.
        raise LengthRequiredError
    wanted = limit + 1 if length is None else length
    chunks = []
    while wanted > 0 and (chunk := stream.read(min(wanted, CHUNK_SIZE))):
        chunks.append(chunk)
        wanted -= len(chunk)
    if length is None and wanted == 0:
        raise PayloadTooLargeError(f"the body is larger than {limit} bytes")
    return b"".join(chunks)


def _throw_away(stream: ReadableBody, size: int) -> None:
    while size > 0 and (chunk := stream.read(min(size, CHUNK_SIZE))):
        size -= len(chunk)
