"""Verifies a request: authenticate the body, parse it, and compare it with the headers.

All functions are pure; the time is an argument. The body is not parsed before it is authenticated, except to compute
the canonical form that may have been signed. See the guide, "Recommended Validation Steps".
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from hmac import compare_digest
from operator import itemgetter
from typing import Any

from envoyou_core.errors import (
    ConfigurationError,
    HeaderMismatchError,
    InvalidTimestampError,
    MissingHeaderError,
    MissingSignatureError,
    SignatureMismatchError,
)
from envoyou_core.event import MAX_NAME_LENGTH, Event, is_plain_text, parse_event
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
    MAX_TIMESTAMP_DIGITS,
    SIGNATURE_LENGTH,
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
"""The maximum age of a timestamp in seconds, and how far ahead it may be: the guide's five minutes."""

DEFAULT_REQUIRED_HEADERS = (WEBHOOK_ID_HEADER, EVENT_TYPE_HEADER)
"""The headers that are required in addition to signature and timestamp, which always are."""

MAX_CACHED = 64
"""How many settings, and how many sets of secrets, `verify` keeps ready. Fewer than the secrets that are redacted."""

_FIELD_OF_OPTIONAL_HEADER = {
    WEBHOOK_ID_HEADER.lower(): "webhook_id",
    EVENT_TYPE_HEADER.lower(): "event_type",
    NONCE_HEADER.lower(): "nonce",
}
_ALWAYS_REQUIRED = {SIGNATURE_HEADER.lower(), TIMESTAMP_HEADER.lower()}


class VerificationPolicy:
    """The settings of verification, and its steps.

    Args:
        tolerance: the maximum difference of the timestamp from now, in seconds.
        signed_content: the accepted forms of signed content.
        required_headers: the headers that are required in addition to signature and timestamp.
        max_canonical_size: bytes; a larger body must be signed in its raw form. `None` for no limit.

    Raises:
        ConfigurationError: an argument is invalid.
    """

    __slots__ = ("has_fast_path", "max_canonical_size", "required_fields", "signed_content", "tolerance")

    def __init__(
        self,
        *,
        tolerance: float = DEFAULT_TOLERANCE,
        signed_content: Sequence[SignedContent] = SIGNED_CONTENT_FORMS,
        required_headers: Iterable[str] = DEFAULT_REQUIRED_HEADERS,
        max_canonical_size: int | None = None,
    ) -> None:
        if not (math.isfinite(tolerance) and tolerance >= 0):
            raise ConfigurationError(f"tolerance must be a finite number of seconds of at least 0, got {tolerance!r}")
        if not _is_size_limit(max_canonical_size):
            raise ConfigurationError(
                f"max_canonical_size must be None or an integer of at least 1, got {max_canonical_size!r}"
            )
        self.tolerance = tolerance
        self.max_canonical_size = max_canonical_size
        self.signed_content = _accepted_forms(signed_content)
        self.required_fields = _required_fields(required_headers)
        fields = {field for field, _ in self.required_fields}
        self.has_fast_path = "raw" in self.signed_content and fields <= {"webhook_id", "event_type"}

    @property
    def required_headers(self) -> tuple[str, ...]:
        """All required headers, signature and timestamp included."""
        return (SIGNATURE_HEADER, TIMESTAMP_HEADER, *(header for _, header in self.required_fields))

    def check_headers(self, request: WebhookRequest, *, now: float) -> None:
        """Check the signature and timestamp headers, before any secret is looked up or any body hashed.

        Args:
            request: the request.
            now: epoch seconds.

        Raises:
            WebhookVerificationError: the signature or the timestamp is missing or malformed, or the timestamp is
                outside the tolerance.
        """
        if not request.signature:
            raise MissingSignatureError
        if not request.timestamp:
            raise InvalidTimestampError
        check_timestamp(request.timestamp, tolerance=self.tolerance, now=now)
        check_signature_syntax(request.signature)

    def is_signed_raw(self, request: WebhookRequest, keys: Iterable[SigningKey]) -> bool:
        """Whether the raw body was signed and that form is accepted. Hashes the body once for each key."""
        return "raw" in self.signed_content and is_signed(
            request.body, "raw", signature=request.signature or b"", timestamp=request.timestamp or b"", keys=keys
        )

    def check_canonical(
        self, request: WebhookRequest, keys: Iterable[SigningKey], *, pause: Pause = lambda: None
    ) -> None:
        """Check that the canonical form of the body was signed. This parses a body that is not authenticated yet.

        Args:
            request: a request whose headers have passed `check_headers`.
            keys: the keys of the accepted secrets.
            pause: called regularly while a large body is processed.

        Raises:
            SignatureMismatchError: the canonical form was not signed, or is not accepted.
        """
        if not self.accepts_canonical(request) or not is_signed(
            request.body,
            "canonical",
            signature=request.signature or b"",
            timestamp=request.timestamp or b"",
            keys=keys,
            pause=pause,
        ):
            raise SignatureMismatchError

    def accepts_canonical(self, request: WebhookRequest) -> bool:
        """Whether the canonical form is accepted for a body of this size."""
        size = len(request.body)
        return "canonical" in self.signed_content and (
            self.max_canonical_size is None or size <= self.max_canonical_size
        )

    def authenticate(
        self, request: WebhookRequest, keys: Sequence[SigningKey], *, now: float, is_signed_raw: bool | None = None
    ) -> None:
        """Check that the body was recently signed with one of `keys`, in the calling thread.

        Args:
            request: the request.
            keys: the keys of the accepted secrets.
            now: epoch seconds.
            is_signed_raw: what `is_signed_raw` returns for these, if it is known.

        Raises:
            WebhookVerificationError: the request is not authentic.
        """
        self.check_headers(request, now=now)
        if is_signed_raw is None:
            is_signed_raw = self.is_signed_raw(request, keys)
        if not is_signed_raw:
            self.check_canonical(request, keys)

    def verify(self, headers: Headers, body: bytes, keys: Sequence[SigningKey], now: float) -> Event:
        """Verify a request whose keys are known, and return its event. See the function `verify`.

        Args:
            headers: the request's headers.
            body: the request's body.
            keys: the keys of the accepted secrets.
            now: epoch seconds.
        """
        is_signed_raw = None
        # Normalising the headers takes longer than computing the signature. The fast path only accepts what the
        # platform usually sends. Everything else, each refusal included, is decided by the checks below.
        if (
            type(headers) is dict
            and type(body) is bytes
            and self.has_fast_path
            and (pick := _pickers.get(tuple(headers))) is not None
        ):
            signature, timestamp, webhook_id, event_type = pick(headers)
            try:
                digits = timestamp.encode()
                if (
                    len(digits) <= MAX_TIMESTAMP_DIGITS
                    and digits.isdigit()
                    and abs(now - int(digits)) <= self.tolerance
                ):
                    for key in keys:
                        if compare_digest(key.signature(digits, body), signature):
                            is_signed_raw = True
                            break
                    else:
                        # A longer one may have white space around it, which is no part of the value.
                        is_signed_raw = False if len(signature) == SIGNATURE_LENGTH else None
            except (AttributeError, TypeError, UnicodeEncodeError):
                # A value is not ASCII text.
                is_signed_raw = None
            if is_signed_raw:
                event = parse_event(body)
                if (
                    event_type == event.type
                    and event_type.isascii()
                    and webhook_id.isascii()
                    and (webhook_id == event.webhook_id or (event.webhook_id is None and webhook_id.strip()))
                ):
                    return event
        request = WebhookRequest.from_http("POST", headers, body)
        self.authenticate(request, keys, now=now, is_signed_raw=is_signed_raw)
        event = self.read_event(request)
        if type(headers) is dict:
            _learn_names(tuple(headers))
        return event

    def read_event(self, request: WebhookRequest) -> Event:
        """Parse the authenticated body and compare the unsigned headers with it.

        Raises:
            InvalidPayloadError: the body is not an event, or a header is missing or contradicts the body.
        """
        event = parse_event(request.body)
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
    """Verify that `body` comes from EnvoyOU and return its event, without storing it.

    See the guide, "Webhook Signature Verification" and "Recommended Validation Steps".

    Args:
        headers: the request's headers, as a mapping or as pairs, in any case.
        body: the request's body as raw bytes.
        secret: the signing secret, or a list during rotation, newest first.
        tolerance: the maximum difference of the timestamp from `now`, in seconds.
        now: epoch seconds; the system's clock by default.
        signed_content: the accepted forms of signed content; `("raw",)` is the strict setting.
        required_headers: the headers that are required in addition to signature and timestamp.
        max_canonical_size: bytes; a larger body must be signed in its raw form. `None` for no limit.

    Raises:
        WebhookVerificationError: the request is not authentic.
        InvalidPayloadError: the request is authentic, but its body is not a usable event.
        ConfigurationError: there is no secret, or a setting is invalid.
    """
    now = time.time() if now is None else now
    keys = _keys_of(secret) if type(secret) is str else _keys(secret)
    if (
        signed_content is SIGNED_CONTENT_FORMS
        and required_headers is DEFAULT_REQUIRED_HEADERS
        and tolerance == DEFAULT_TOLERANCE
        and max_canonical_size is None
    ):
        policy = _DEFAULT_POLICY
    else:
        policy = _policy(
            tolerance=tolerance,
            signed_content=signed_content if isinstance(signed_content, str) else tuple(signed_content),
            required_headers=required_headers if isinstance(required_headers, str) else tuple(required_headers),
            max_canonical_size=max_canonical_size,
        )
    return policy.verify(headers, body, keys, now)


# Callers pass the same few arguments with each request. With `typed`, because True is no size although it equals 1.
_policy = lru_cache(MAX_CACHED, typed=True)(VerificationPolicy)
_keys_of = lru_cache(MAX_CACHED)(signing_keys)

_PICKED = (SIGNATURE_HEADER, TIMESTAMP_HEADER, WEBHOOK_ID_HEADER, EVENT_TYPE_HEADER)

_pickers: dict[tuple[object, ...], Callable[[Any], tuple[Any, ...]] | None] = {}
"""Returns the values of the headers `_PICKED`, by the names of all headers; `None` if one is missing or repeated."""


def _learn_names(names: tuple[str | bytes, ...]) -> None:
    """Remember the names of the headers of an authentic delivery. Others could fill the memory with made-up names."""
    if names in _pickers:
        return
    spelled = [_spellings(header, names) for header in _PICKED]
    is_plain = all(len(found) == 1 and isinstance(found[0], str) for found in spelled)
    if len(_pickers) >= MAX_CACHED:
        _pickers.clear()
    _pickers[names] = itemgetter(*(found[0] for found in spelled)) if is_plain else None


def _spellings(header: str, names: Iterable[str | bytes]) -> list[str | bytes]:
    either = {header.lower(), header.lower().encode()}
    return [name for name in names if name.lower() in either and name.isascii()]


def _keys(secret: Secrets) -> tuple[SigningKey, ...]:
    if isinstance(secret, list):
        secret = tuple(secret)
    # Anything else is an error, which names its type. It may not be hashable.
    return _keys_of(secret) if type(secret) in {str, bytes, tuple} else signing_keys(secret)


def header_text(value: bytes | None) -> str | None:
    """Decode an unsigned header's value; `None` if it is not text that can be stored."""
    try:
        text = (value or b"").decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if 0 < len(text) <= MAX_NAME_LENGTH and is_plain_text(text) else None


def _is_size_limit(size: object) -> bool:
    return size is None or (isinstance(size, int) and not isinstance(size, bool) and size >= 1)


def _accepted_forms(signed_content: Sequence[SignedContent]) -> tuple[SignedContent, ...]:
    accepted = [signed_content] if isinstance(signed_content, str) else list(signed_content)
    if not accepted or not set(accepted) <= set(SIGNED_CONTENT_FORMS):
        raise ConfigurationError(
            f"signed_content must be one or both of {SIGNED_CONTENT_FORMS}, got {signed_content!r}"
        )
    return tuple(form for form in SIGNED_CONTENT_FORMS if form in accepted)


def _required_fields(headers: Iterable[str]) -> tuple[tuple[str, str], ...]:
    names = [headers] if isinstance(headers, str) else list(headers)
    unknown = [name for name in names if name.lower() not in _FIELD_OF_OPTIONAL_HEADER.keys() | _ALWAYS_REQUIRED]
    if unknown:
        raise ConfigurationError(f"required_headers must be security headers of the guide, got {unknown!r}")
    return tuple(
        (_FIELD_OF_OPTIONAL_HEADER[name.lower()], name) for name in names if name.lower() not in _ALWAYS_REQUIRED
    )


_DEFAULT_POLICY = VerificationPolicy()
