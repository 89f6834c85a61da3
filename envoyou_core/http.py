"""Requests and responses without a framework, and the status, headers and body of each answer.

See the guide, "Security Headers".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

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
from envoyou_core.validation import check_count

__all__ = [
    "EVENT_TYPE_HEADER",
    "NONCE_HEADER",
    "REFUSALS",
    "SIGNATURE_HEADER",
    "TIMESTAMP_HEADER",
    "WEBHOOK_ID_HEADER",
    "Headers",
    "RequestLimits",
    "WebhookRequest",
    "WebhookResponse",
]

SIGNATURE_HEADER: Final = "X-EnvoyOU-Signature"
"""The header with the signature."""

TIMESTAMP_HEADER: Final = "X-EnvoyOU-Timestamp"
"""The header with the time of the delivery, in epoch seconds; it is signed."""

WEBHOOK_ID_HEADER: Final = "X-EnvoyOU-Webhook-ID"
"""The header with the endpoint's id."""

EVENT_TYPE_HEADER: Final = "X-EnvoyOU-Event-Type"
"""The header with the event's type."""

NONCE_HEADER: Final = "X-EnvoyOU-Nonce"
"""The header with the delivery's nonce."""


Headers = Mapping[str, str] | Mapping[bytes, bytes] | Iterable[tuple[str, str]] | Iterable[tuple[bytes, bytes]]
"""Headers as a mapping or as pairs, text or bytes, in any case."""


class WebhookRequest(msgspec.Struct, frozen=True):
    """An HTTP request: the method, the raw body, and the values of the relevant headers as raw bytes.

    A missing header is `None`. The values of a repeated header are joined by a comma, as HTTP prescribes, so that the
    result equals neither of them.

    `headers` are all headers as they were given; `header` returns one of them.

    `path`, without the query, and `peer`, the client's address, are optional and only logged. Behind a proxy, `peer` is
    the proxy's address unless the server is configured to trust the proxy's headers.
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
    headers: tuple[tuple[str | bytes, str | bytes], ...] = ()

    @classmethod
    def from_http(
        cls, method: str, headers: Headers, body: bytes, *, path: str | None = None, peer: str | None = None
    ) -> WebhookRequest:
        """Create a request from headers of any case and type.

        Args:
            method: the HTTP method, in any case.
            headers: see `Headers`.
            body: the raw body.
            path: the request's path without its query, for the log.
            peer: the client's address, for the log.

        Raises:
            TypeError: `body` is not bytes. A decoded body cannot be verified.
        """
        if type(body) is not bytes:
            if not isinstance(body, bytes | bytearray | memoryview):
                raise TypeError(f"the body must be the raw bytes of the request, got {type(body).__name__}")
            body = bytes(body)
        # The type of most headers is asked first: an abstract class takes longer to ask.
        pairs = tuple(headers.items() if type(headers) is dict or isinstance(headers, Mapping) else headers)
        return cls._of(method.upper(), body, _select_headers(pairs), path, peer, pairs)

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
        """Create a request from the `headers` of an ASGI scope, whose names are in lower case."""
        pairs = tuple(headers)
        return cls._of(method, body, _select_headers(pairs), path, peer, pairs)

    @classmethod
    def from_wsgi(cls, environ: Mapping[str, object], body: bytes) -> WebhookRequest:
        """Create a request from a WSGI environment and the body that was read from it."""
        values = [
            _to_bytes(str(value)).strip(_WHITE_SPACE) if (value := environ.get(key)) else None for key in _WSGI_KEYS
        ]
        return cls._of(
            str(environ.get("REQUEST_METHOD", "")),
            body,
            values,
            _full_path(environ),
            str(environ.get("REMOTE_ADDR") or "") or None,
            tuple(_headers_of_wsgi(environ)),
        )

    @classmethod
    def _of(
        cls,
        method: str,
        body: bytes,
        values: list[bytes | None],
        path: str | None,
        peer: str | None,
        headers: tuple[tuple[str | bytes, str | bytes], ...],
    ) -> WebhookRequest:
        """Create a request with the values of `_HEADERS`. Positional arguments take half the time of a mapping."""
        content_type, signature, timestamp, webhook_id, event_type, nonce = values
        return cls(method, body, content_type, signature, timestamp, webhook_id, event_type, nonce, path, peer, headers)

    def header(self, name: str) -> bytes | None:
        """Return the value of any header, whose name may be in any case; `None` if it is missing.

        WSGI does not tell a dash in a name from an underscore.
        """
        key = name.lower().encode("latin-1", "replace")
        found = (value for each, value in self.headers if _to_bytes(each).lower() == key)
        values = [_to_bytes(value).strip(_WHITE_SPACE) for value in found]
        return b",".join(values) if values else None

    # Servers spell the other headers of one request differently.

    def __eq__(self, other: object) -> bool:
        return self._compared() == other._compared() if isinstance(other, WebhookRequest) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._compared())

    def _compared(self) -> tuple[object, ...]:
        return msgspec.structs.astuple(self)[:-1]

    def __repr__(self) -> str:
        # Neither the body nor the signature may be logged.
        return f"WebhookRequest({self.method!r}, {len(self.body)} bytes)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        # msgspec's own shows all fields.
        return [("method", self.method), ("size", len(self.body))]


_HEADERS: Final = (
    "content-type",
    SIGNATURE_HEADER.lower(),
    TIMESTAMP_HEADER.lower(),
    WEBHOOK_ID_HEADER.lower(),
    EVENT_TYPE_HEADER.lower(),
    NONCE_HEADER.lower(),
)
"""The headers that `WebhookRequest` has fields for, in the order of these."""

_WSGI_KEYS: Final = tuple(
    (name if name == "content-type" else f"http-{name}").upper().replace("-", "_") for name in _HEADERS
)
_INDEX_OF_HEADER: Final[dict[str | bytes, int]] = {
    key: index for index, name in enumerate(_HEADERS) for key in (name, name.encode())
}
_WHITE_SPACE: Final = b" \t"


def _select_headers(pairs: Iterable[tuple[str | bytes, str | bytes]]) -> list[bytes | None]:
    """Return the values of `_HEADERS`, in that order; `None` for one that is missing."""
    values: list[bytes | None] = [None] * len(_HEADERS)
    find = _INDEX_OF_HEADER.get
    for name, text in pairs:
        index = find(name.lower())
        # Other letters may become ASCII in lower case.
        if index is not None and name.isascii():
            value = (text if isinstance(text, bytes) else _to_bytes(text)).strip(_WHITE_SPACE)
            earlier = values[index]
            values[index] = value if earlier is None else earlier + b"," + value
    return values


def _headers_of_wsgi(environ: Mapping[str, object]) -> Iterator[tuple[bytes, bytes]]:
    for key, value in environ.items():
        name = _header_of_wsgi(key)
        if name is not None:
            yield name, _to_bytes(str(value))


@lru_cache(256)
def _header_of_wsgi(key: str) -> bytes | None:
    """Return the name of the header in a WSGI environment; `None` if `key` is something else."""
    if not key.startswith("HTTP_") and key not in {"CONTENT_LENGTH", "CONTENT_TYPE"}:
        return None
    return _to_bytes(key.removeprefix("HTTP_").replace("_", "-").lower())


def _full_path(environ: Mapping[str, object]) -> str | None:
    path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
    # WSGI represents each byte of the path as one character.
    return path.encode("latin-1", "replace").decode("utf-8", "replace") or None


def _to_bytes(text: str | bytes) -> bytes:
    if isinstance(text, bytes):
        return text
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        # Test clients may pass text that a server would not.
        return text.encode("utf-8", "surrogatepass")


CLIENT_CLOSED_REQUEST: Final = 499
"""The status of the empty response to a sender that has disconnected and does not receive it."""

JSON_HEADERS: Final = (("Content-Type", "application/json"),)


class WebhookResponse(msgspec.Struct, frozen=True):
    """The response to a request. Adapters copy status, headers and body as they are.

    Attributes:
        status: the HTTP status code.
        body: JSON, as bytes.
        headers: pairs of names and values, with the content type and without the content length.
    """

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = JSON_HEADERS

    @classmethod
    def of_error(cls, error: WebhookError) -> WebhookResponse:
        """Create the response for `error`: `{"error": "<stable code>", "message": "..."}`."""
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
"""One error class for each status and code that a request may be refused with; the OpenAPI document lists them."""

ACCEPTED: Final = WebhookResponse(200, b'{"received": true}')
DUPLICATE: Final = WebhookResponse(200, b'{"received": true, "duplicate": true}')


def content_length(value: bytes) -> int | None:
    """Parse a Content-Length header; `None` if it is missing or not a number."""
    # Python refuses to parse thousands of digits. The first twenty are enough to see that the body is too large.
    return int(value[:20]) if value.isdigit() else None


def path_variants(path: str) -> frozenset[str]:
    """Return the path with and without a final slash.

    Raises:
        ConfigurationError: it does not begin with a slash.
    """
    if not path.startswith("/"):
        raise ConfigurationError(f"path must begin with a slash, got {path!r}")
    stem = path.rstrip("/")
    return frozenset({stem, f"{stem}/"})


class RequestLimits(msgspec.Struct, frozen=True):
    """What a request must satisfy before its body is read.

    Attributes:
        max_body_size: the maximum size of a body, in bytes.

    Raises:
        ConfigurationError: `max_body_size` is not an integer of at least 1.
    """

    max_body_size: int

    def __post_init__(self) -> None:
        check_count("max_body_size", self.max_body_size)

    def check(self, method: str, content_type: bytes | None, size: int) -> None:
        """Check the method, the content type and the size in bytes.

        Raises:
            WebhookError: 405, 413 or 415.
        """
        if method != "POST":
            raise MethodNotAllowedError
        _check_content_type(content_type)
        if size > self.max_body_size:
            raise self.too_large()

    def too_large(self) -> PayloadTooLargeError:
        """Create the error for a body that is larger than the limit."""
        return PayloadTooLargeError(f"the body is larger than {self.max_body_size} bytes")


def _check_content_type(content_type: bytes | None) -> None:
    """Accept `application/json` and `application/*+json`, with any parameters."""
    if content_type == b"application/json":
        return
    essence = (content_type or b"").partition(b";")[0].strip().lower()
    if essence != b"application/json" and not (essence.startswith(b"application/") and essence.endswith(b"+json")):
        raise UnsupportedMediaTypeError
