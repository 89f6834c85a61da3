"""A request and a response without a framework, and the bytes of the status contract.

See the guide, "Security Headers".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from envoyou_core.errors import (
    ConfigurationError,
    HeaderMismatchError,
    InvalidPayloadError,
    LengthRequiredError,
    MethodNotAllowedError,
    MissingHeaderError,
    PayloadTooLargeError,
    UnavailableError,
    UnsupportedMediaTypeError,
    WebhookError,
    WebhookVerificationError,
)

__all__ = [
    "EVENT_TYPE_HEADER",
    "NONCE_HEADER",
    "REFUSALS",
    "SIGNATURE_HEADER",
    "TIMESTAMP_HEADER",
    "WEBHOOK_ID_HEADER",
    "Headers",
    "WebhookRequest",
    "WebhookResponse",
]

SIGNATURE_HEADER: Final = "X-EnvoyOU-Signature"
TIMESTAMP_HEADER: Final = "X-EnvoyOU-Timestamp"
WEBHOOK_ID_HEADER: Final = "X-EnvoyOU-Webhook-ID"
EVENT_TYPE_HEADER: Final = "X-EnvoyOU-Event-Type"
NONCE_HEADER: Final = "X-EnvoyOU-Nonce"

Headers = Mapping[str, str] | Mapping[bytes, bytes] | Iterable[tuple[str, str]] | Iterable[tuple[bytes, bytes]]
"""Headers as a mapping or as pairs, text or bytes, in any case."""


@dataclass(frozen=True, slots=True, repr=False)
class WebhookRequest:
    """What the core needs of one HTTP request: the method, the raw body, and seven headers as the bytes they were.

    A header that is absent is `None`. One that was sent twice holds both values joined by a comma, as HTTP has it,
    and so can match neither.

    `path`, without the query, and `peer`, the address of the connection's other end, are optional: they are for the log
    only. Behind a proxy, the peer is the proxy unless the server is configured to trust its headers.
    """

    method: str
    body: bytes
    content_type: bytes | None = None
    signature: bytes | None = None
    timestamp: bytes | None = None
    webhook_id: bytes | None = None
    event_type: bytes | None = None
    nonce: bytes | None = None
    path: str | None = None
    peer: str | None = None

    @classmethod
    def from_http(
        cls, method: str, headers: Headers, body: bytes, *, path: str | None = None, peer: str | None = None
    ) -> WebhookRequest:
        """Make one from any server's headers, whatever their case and type.

        Args:
            method: in any case.
            headers: see `Headers`.
            body: the raw body.
            path: the request's path without its query, for the log.
            peer: the address of the connection's other end, for the log.

        Raises:
            TypeError: `body` is not bytes: a decoded body cannot be verified.
        """
        if not isinstance(body, bytes | bytearray | memoryview):
            raise TypeError(f"the body must be the raw bytes of the request, not {type(body).__name__}")
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        found = _pick((_octets(name).lower(), _octets(value)) for name, value in pairs)
        return cls(method.upper(), bytes(body), **found, path=path, peer=peer)

    @classmethod
    def from_asgi(
        cls,
        method: str,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes,
        *,
        path: str | None = None,
        peer: str | None = None,
    ) -> WebhookRequest:
        """Make one from the `headers` of an ASGI scope, whose names are in lower case already."""
        return cls(method, body, **_pick(headers), path=path, peer=peer)

    @classmethod
    def from_wsgi(cls, environ: Mapping[str, object], body: bytes) -> WebhookRequest:
        """Make one from a WSGI environment and the body read from it."""
        found = {}
        for key, field in _FIELD_OF_WSGI_KEY.items():
            value = environ.get(key)
            if value:
                found[field] = _octets(str(value)).strip(_WHITE_SPACE)
        return cls(
            str(environ.get("REQUEST_METHOD", "")),
            body,
            **found,
            path=_path_of(environ),
            peer=str(environ.get("REMOTE_ADDR") or "") or None,
        )

    def __repr__(self) -> str:
        # Neither the body nor the signature may reach a log.
        return f"WebhookRequest({self.method!r}, {len(self.body)} bytes)"


_FIELD_OF_HEADER: Final = {
    b"content-type": "content_type",
    SIGNATURE_HEADER.lower().encode(): "signature",
    TIMESTAMP_HEADER.lower().encode(): "timestamp",
    WEBHOOK_ID_HEADER.lower().encode(): "webhook_id",
    EVENT_TYPE_HEADER.lower().encode(): "event_type",
    NONCE_HEADER.lower().encode(): "nonce",
}
_FIELD_OF_WSGI_KEY: Final = {
    (name if name == b"content-type" else b"http-" + name).decode().upper().replace("-", "_"): field
    for name, field in _FIELD_OF_HEADER.items()
}
_WHITE_SPACE: Final = b" \t"


def _pick(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name, value in pairs:
        field = _FIELD_OF_HEADER.get(name)
        if field is not None:
            value = value.strip(_WHITE_SPACE)
            found[field] = found[field] + b"," + value if field in found else value
    return found


def _path_of(environ: Mapping[str, object]) -> str | None:
    path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
    # WSGI has each byte of it as one character.
    return path.encode("latin-1", "replace").decode("utf-8", "replace") or None


def _octets(text: str | bytes) -> bytes:
    if isinstance(text, bytes):
        return text
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        # A test client may hand over text that no server would.
        return text.encode("utf-8", "surrogatepass")


CLIENT_CLOSED_REQUEST: Final = 499
"""The status for a sender that disconnected, and so does not see the answer: it has no body."""

JSON_HEADERS: Final = (("Content-Type", "application/json"),)


@dataclass(frozen=True, slots=True)
class WebhookResponse:
    """The answer: an adapter copies status, headers and body, and decides nothing.

    Attributes:
        status: the HTTP status code.
        body: JSON, as bytes.
        headers: pairs of text, the content type among them; the length is left to the server.
    """

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = JSON_HEADERS

    @classmethod
    def of_error(cls, error: WebhookError) -> WebhookResponse:
        """The answer that `error` stands for: `{"error": "<stable code>", "message": "..."}`."""
        if error.status == CLIENT_CLOSED_REQUEST:
            return cls(CLIENT_CLOSED_REQUEST, b"", ())
        body = json.dumps({"error": error.code, "message": error.public_message}).encode()
        return cls(error.status, body, (*JSON_HEADERS, *_EXTRA_HEADERS.get(type(error), ())))


_EXTRA_HEADERS: Final[Mapping[type[WebhookError], tuple[tuple[str, str], ...]]] = {
    MethodNotAllowedError: (("Allow", "POST"),),
    UnavailableError: (("Retry-After", "1"),),
}

REFUSALS: Final[tuple[type[WebhookError], ...]] = (
    InvalidPayloadError,
    MissingHeaderError,
    HeaderMismatchError,
    WebhookVerificationError,
    MethodNotAllowedError,
    LengthRequiredError,
    PayloadTooLargeError,
    UnsupportedMediaTypeError,
    UnavailableError,
)
"""One error for each status and code that a request may be refused with: the contract, for those who describe it."""

ACCEPTED: Final = WebhookResponse(200, b'{"received": true}')
DUPLICATE: Final = WebhookResponse(200, b'{"received": true, "duplicate": true}')


def content_length(value: bytes) -> int | None:
    """The size in bytes that a Content-Length header declares; `None` where it is absent or no number."""
    # Python does not read a number of thousands of digits; the first twenty say all that needs to be known of it.
    return int(value[:20]) if value.isdigit() else None


def path_variants(path: str) -> frozenset[str]:
    """The two spellings of a path, without and with a slash at its end.

    Raises:
        ConfigurationError: it does not begin with a slash.
    """
    if not path.startswith("/"):
        raise ConfigurationError(f"a path begins with a slash, unlike {path!r}")
    stem = path.rstrip("/")
    return frozenset({stem, f"{stem}/"})


def check_method(method: str) -> None:
    """Let POST through.

    Raises:
        MethodNotAllowedError: it is another method.
    """
    if method != "POST":
        raise MethodNotAllowedError


def check_content_type(content_type: bytes | None) -> None:
    """Let `application/json` and `application/*+json` through, whatever their parameters.

    Raises:
        UnsupportedMediaTypeError: it is another type, or none.
    """
    if content_type == b"application/json":
        return
    essence = (content_type or b"").partition(b";")[0].strip().lower()
    if essence != b"application/json" and not (essence.startswith(b"application/") and essence.endswith(b"+json")):
        raise UnsupportedMediaTypeError
