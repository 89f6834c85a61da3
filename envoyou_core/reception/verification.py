"""From a request to a proven event: authenticate the bytes, parse them, hold the headers against them.

Pure: no framework, no I/O, the time is an argument. Nothing is parsed before it is proven, except to find the
canonical form that may have been signed. See the guide, "Recommended Validation Steps".
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence

from envoyou_core.errors import (
    ConfigurationError,
    HeaderMismatchError,
    InvalidTimestampError,
    MissingHeaderError,
    MissingSignatureError,
    SignatureMismatchError,
)
from envoyou_core.event import MAX_NAME_LENGTH, Event, is_plain_text
from envoyou_core.http import (
    EVENT_TYPE_HEADER,
    NONCE_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    WEBHOOK_ID_HEADER,
    Headers,
    WebhookRequest,
)
from envoyou_core.reception.canonical import Pause
from envoyou_core.reception.signature import (
    SIGNED_CONTENT_FORMS,
    Secrets,
    SignedContent,
    SigningKey,
    check_signature_syntax,
    check_timestamp,
    is_signed,
    signing_keys,
)

__all__ = ["DEFAULT_REQUIRED_HEADERS", "DEFAULT_TOLERANCE", "VerificationPolicy", "verify"]

DEFAULT_TOLERANCE = 300.0
"""Seconds that a timestamp may lie in the past or in the future: the guide's five minutes."""

DEFAULT_REQUIRED_HEADERS = (WEBHOOK_ID_HEADER, EVENT_TYPE_HEADER)
"""The headers that are required besides signature and timestamp, which always are."""

_FIELD_OF_OPTIONAL_HEADER = {
    WEBHOOK_ID_HEADER.lower(): "webhook_id",
    EVENT_TYPE_HEADER.lower(): "event_type",
    NONCE_HEADER.lower(): "nonce",
}
_ALWAYS_REQUIRED = {SIGNATURE_HEADER.lower(), TIMESTAMP_HEADER.lower()}


class VerificationPolicy:
    """What is accepted as genuine.

    Args:
        tolerance: seconds that a timestamp may lie in the past or in the future.
        signed_content: accepted forms of what was signed.
        required_headers: headers required besides signature and timestamp.
        max_canonical_size: bytes; a larger body is accepted in its raw form only. `None` for no limit.

    Raises:
        ConfigurationError: one of them makes no sense.
    """

    __slots__ = ("max_canonical_size", "required_fields", "signed_content", "tolerance")

    def __init__(
        self,
        *,
        tolerance: float = DEFAULT_TOLERANCE,
        signed_content: Sequence[SignedContent] = SIGNED_CONTENT_FORMS,
        required_headers: Iterable[str] = DEFAULT_REQUIRED_HEADERS,
        max_canonical_size: int | None = None,
    ) -> None:
        if not (math.isfinite(tolerance) and tolerance >= 0):
            raise ConfigurationError(f"tolerance is a number of seconds, zero or more, not {tolerance!r}")
        if not _is_bound(max_canonical_size):
            raise ConfigurationError(
                f"max_canonical_size must be None or a whole number of one or more, got {max_canonical_size!r}"
            )
        self.tolerance = tolerance
        self.max_canonical_size = max_canonical_size
        self.signed_content = _accepted_forms(signed_content)
        self.required_fields = _required_fields(required_headers)

    @property
    def required_headers(self) -> tuple[str, ...]:
        """The headers without which a request is refused."""
        return (SIGNATURE_HEADER, TIMESTAMP_HEADER, *(header for _, header in self.required_fields))

    def check_headers(self, request: WebhookRequest, *, now: float) -> None:
        """Check what the headers alone can tell, before any secret is looked up and any body is hashed.

        Args:
            request: what was sent.
            now: epoch seconds.

        Raises:
            WebhookVerificationError: the signature or the timestamp is missing or malformed, or too far from now.
        """
        if not request.signature:
            raise MissingSignatureError
        if not request.timestamp:
            raise InvalidTimestampError
        check_timestamp(request.timestamp, tolerance=self.tolerance, now=now)
        check_signature_syntax(request.signature)

    def is_signed_raw(self, request: WebhookRequest, keys: Iterable[SigningKey]) -> bool:
        """Whether the bytes of the body were signed, and that is accepted. It reads the body once for each key."""
        return "raw" in self.signed_content and self._is_signed(request, "raw", keys)

    def check_canonical(
        self, request: WebhookRequest, keys: Iterable[SigningKey], *, pause: Pause = lambda: None
    ) -> None:
        """Prove that the canonical form of the body was signed: this parses what is not proven genuine.

        Args:
            request: what was sent; `check_headers` has let it through.
            keys: of the secrets that are accepted.
            pause: called every now and then while a large body is worked on.

        Raises:
            SignatureMismatchError: it was not, or it is not accepted.
        """
        if not self.tries_canonical(request) or not self._is_signed(request, "canonical", keys, pause=pause):
            raise SignatureMismatchError

    def tries_canonical(self, request: WebhookRequest) -> bool:
        """Whether the canonical form is accepted of a body of this size."""
        size = len(request.body)
        return "canonical" in self.signed_content and (
            self.max_canonical_size is None or size <= self.max_canonical_size
        )

    def authenticate(self, request: WebhookRequest, keys: Iterable[SigningKey], *, now: float) -> None:
        """Prove that the body was signed under one of `keys`, recently, in the calling thread.

        Args:
            request: what was sent.
            keys: of the secrets that are accepted.
            now: epoch seconds.

        Raises:
            WebhookVerificationError: it was not.
        """
        self.check_headers(request, now=now)
        keys = tuple(keys)
        if not self.is_signed_raw(request, keys):
            self.check_canonical(request, keys)

    def _is_signed(
        self, request: WebhookRequest, form: SignedContent, keys: Iterable[SigningKey], *, pause: Pause = lambda: None
    ) -> bool:
        return is_signed(
            request.body,
            form,
            signature=request.signature or b"",
            timestamp=request.timestamp or b"",
            keys=keys,
            pause=pause,
        )

    def read_event(self, request: WebhookRequest) -> Event:
        """Parse the authenticated body and hold the unsigned headers against it.

        Raises:
            InvalidPayloadError: the body is not an event, a required header is missing, or one contradicts the body.
        """
        event = Event.from_body(request.body)
        for field, header in self.required_fields:
            if not getattr(request, field):
                raise MissingHeaderError(f"the header {header} is missing")
        if request.event_type and request.event_type != event.type.encode():
            raise HeaderMismatchError(f"the header {EVENT_TYPE_HEADER} contradicts the body")
        if request.webhook_id and event.webhook_id is not None and request.webhook_id != event.webhook_id.encode():
            raise HeaderMismatchError(f"the header {WEBHOOK_ID_HEADER} contradicts the body")
        return event


def verify(
    headers: Headers,
    body: bytes,
    *,
    secret: Secrets,
    tolerance: float = DEFAULT_TOLERANCE,
    now: float | None = None,
    signed_content: Sequence[SignedContent] = SIGNED_CONTENT_FORMS,
    required_headers: Iterable[str] = DEFAULT_REQUIRED_HEADERS,
    max_canonical_size: int | None = None,
) -> Event:
    """Only the check: prove that `body` comes from EnvoyOU and return its event.

    See the guide, "Webhook Signature Verification" and "Recommended Validation Steps".

    Args:
        headers: the request's headers, as a mapping or as pairs, in any case.
        body: the request's body, the raw bytes as they came.
        secret: the signing secret, or a list of several while one is rotated out, newest first.
        tolerance: seconds that the timestamp may lie in the past or in the future.
        now: epoch seconds; the system's clock by default.
        signed_content: the accepted forms; `("raw",)` is the strict setting.
        required_headers: headers required besides signature and timestamp.
        max_canonical_size: bytes; a larger body is accepted in its raw form only. `None` for no limit.

    Raises:
        WebhookVerificationError: the request is not proven genuine.
        InvalidPayloadError: it is genuine, but not a usable event.
        ConfigurationError: there is no secret, or a setting makes no sense.
    """
    policy = VerificationPolicy(
        tolerance=tolerance,
        signed_content=signed_content,
        required_headers=required_headers,
        max_canonical_size=max_canonical_size,
    )
    request = WebhookRequest.from_http("POST", headers, body)
    policy.authenticate(request, signing_keys(secret), now=time.time() if now is None else now)
    return policy.read_event(request)


def header_text(value: bytes | None) -> str | None:
    """An unsigned header's value as text that can be stored, or `None` where it is not."""
    try:
        text = (value or b"").decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if 0 < len(text) <= MAX_NAME_LENGTH and is_plain_text(text) else None


def _is_bound(size: object) -> bool:
    return size is None or (isinstance(size, int) and not isinstance(size, bool) and size >= 1)


def _accepted_forms(signed_content: Sequence[SignedContent]) -> tuple[SignedContent, ...]:
    asked = [signed_content] if isinstance(signed_content, str) else list(signed_content)
    if not asked or not set(asked) <= set(SIGNED_CONTENT_FORMS):
        raise ConfigurationError(f"signed_content takes one or both of {SIGNED_CONTENT_FORMS}, not {signed_content!r}")
    return tuple(form for form in SIGNED_CONTENT_FORMS if form in asked)


def _required_fields(headers: Iterable[str]) -> tuple[tuple[str, str], ...]:
    names = [headers] if isinstance(headers, str) else list(headers)
    unknown = [name for name in names if name.lower() not in _FIELD_OF_OPTIONAL_HEADER.keys() | _ALWAYS_REQUIRED]
    if unknown:
        raise ConfigurationError(f"required_headers knows the guide's security headers only, not {unknown!r}")
    return tuple(
        (_FIELD_OF_OPTIONAL_HEADER[name.lower()], name) for name in names if name.lower() not in _ALWAYS_REQUIRED
    )
