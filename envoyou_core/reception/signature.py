"""Signatures: keys, `sign` and the checks of the signature and timestamp headers. All functions are pure.

See the guide, "Webhook Signature Verification". A signature is `v1,` and a hexadecimal HMAC-SHA256, with the secret as
its key, of the timestamp as the header spells it, a full stop, and the signed content.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from envoyou_core.errors import (
    ConfigurationError,
    InvalidTimestampError,
    SignatureMismatchError,
    TimestampOutOfToleranceError,
)
from envoyou_core.reception.canonical import Pause, canonical_form
from envoyou_core.reception.secret_text import check_secret_text
from envoyou_core.redaction import remember_secret

__all__ = [
    "Secret",
    "Secrets",
    "SignedContent",
    "SigningKey",
    "check_signature_syntax",
    "check_timestamp",
    "hint_for",
    "is_signed",
    "sign",
    "signing_keys",
]

Secret = str | bytes
"""One signing secret. The key is the UTF-8 encoding of a string, prefix included."""

Secrets = Secret | Sequence[Secret]
"""One signing secret, or several during rotation, newest first."""

SignedContent = Literal["raw", "canonical"]
"""What was signed: `raw`, the bytes as sent, or `canonical`, the guide's Python recipe for the parsed body."""

SIGNED_CONTENT_FORMS: tuple[SignedContent, ...] = ("raw", "canonical")
SCHEME = "v1,"
SIGNATURE_LENGTH = len(SCHEME) + 64
MAX_TIMESTAMP_DIGITS = 12

_match_signature = re.compile(rb"v1,[0-9a-f]{64}").fullmatch

_BLOCK_SIZE = 64
_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))


class SigningKey:
    """A secret as an HMAC key: the two hash states that every signature starts from.

    Args:
        secret: the secret.
        name: the secret's name in errors.

    Raises:
        ConfigurationError: the secret is empty, blank, or neither `str` nor `bytes`.
    """

    # Copying two prepared states takes half the time of a new HMAC with the same key.
    __slots__ = ("_inner", "_outer")

    def __init__(self, secret: Secret, name: str = "the webhook secret") -> None:
        if not isinstance(secret, str | bytes):
            raise ConfigurationError(f"{name} must be str or bytes, got {type(secret).__name__}{hint_for(secret)}")
        if not secret.strip():
            raise ConfigurationError(f"{name} must not be empty")
        try:
            key = secret.encode() if isinstance(secret, str) else secret
        except UnicodeEncodeError:
            raise ConfigurationError(f"{name} must be valid Unicode text") from None
        remember_secret(key)
        if len(key) > _BLOCK_SIZE:
            key = hashlib.sha256(key).digest()
        key = key.ljust(_BLOCK_SIZE, b"\0")
        self._inner = hashlib.sha256(key.translate(_INNER_PAD))
        self._outer = hashlib.sha256(key.translate(_OUTER_PAD))

    def signature(self, timestamp: bytes, content: bytes) -> str:
        """Compute the signature header's value for `content` and the timestamp header's value."""
        inner = self._inner.copy()
        inner.update(timestamp + b".")
        inner.update(content)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return SCHEME + outer.hexdigest()

    def fingerprint(self) -> str:
        """Return an identifier that does not reveal the key: 128 bits of an HMAC with the key, in hexadecimal."""
        # A timestamp consists of digits, so the fingerprint is never part of a delivery's signature.
        return self.signature(b"fingerprint", b"").removeprefix(SCHEME)[:32]

    def __repr__(self) -> str:
        return "SigningKey(...)"


def signing_keys(secrets: Secrets) -> tuple[SigningKey, ...]:
    """Create the keys for one secret or several, newest first.

    Raises:
        ConfigurationError: there is no secret, or one is invalid: empty, with white space or quotes around it, or with
            an invisible character in it.
    """
    if isinstance(secrets, str | bytes):
        return (_checked_key(secrets, "the webhook secret"),)
    # A subclass of tuple may be a database row, whose columns are not all secrets.
    if not isinstance(secrets, list) and type(secrets) is not tuple:
        raise ConfigurationError(
            f"the webhook secret must be str, bytes or a list of these, got {type(secrets).__name__}{hint_for(secrets)}"
        )
    if not secrets:
        raise ConfigurationError("the list of webhook secrets must not be empty")
    return tuple(
        _checked_key(secret, f"webhook secret {position} of {len(secrets)}")
        for position, secret in enumerate(secrets, start=1)
    )


def _checked_key(secret: Secret, name: str) -> SigningKey:
    key = SigningKey(secret, name)
    check_secret_text(secret, name)
    return key


def hint_for(value: object) -> str:
    """Return a hint for the error about `value` if it has a type that is often mistaken for a secret."""
    if hasattr(value, "get_secret_value"):
        return "; pass its .get_secret_value()"
    if isinstance(value, set | frozenset):
        return ", which has no order; pass a list, newest first"
    if isinstance(value, Mapping):
        return ", which may hold several endpoints or columns; pass the secrets of one endpoint"
    if isinstance(value, tuple):
        return "; if it is a database row, pass the column that holds the secret"
    return ""


def sign(body: bytes, *, secret: Secret, timestamp: int | str, signed_content: SignedContent = "raw") -> str:
    """Compute the signature header's value, `v1,<hex>`. See the guide, "Webhook Signature Verification".

    Args:
        body: the request's body.
        secret: the endpoint's signing secret.
        timestamp: when the request is sent, in epoch seconds, as the timestamp header spells it.
        signed_content: `raw` signs the bytes of `body`; `canonical` signs the result of the guide's Python recipe.

    Raises:
        ConfigurationError: the secret is empty, or `signed_content` is neither of the two.
        ValueError: `signed_content` is `canonical` and `body` has no canonical form.

    Examples:
        >>> sign(b"{}", secret="whsec_test", timestamp=1640995200)[:12]
        'v1,ee77a584a'
    """
    if signed_content not in SIGNED_CONTENT_FORMS:
        raise ConfigurationError(f"signed_content must be one of {SIGNED_CONTENT_FORMS}, got {signed_content!r}")
    content = body if signed_content == "raw" else canonical_form(body)
    return SigningKey(secret).signature(str(timestamp).encode(), content)


def check_timestamp(timestamp: bytes, *, tolerance: float, now: float) -> None:
    """Check the timestamp header against the clock. See the guide, "Recommended Validation Steps".

    Args:
        timestamp: the header's value: epoch seconds in 1 to 12 ASCII digits.
        tolerance: the maximum difference from now, in seconds, in the past or in the future.
        now: epoch seconds.

    Raises:
        InvalidTimestampError: the timestamp is malformed.
        TimestampOutOfToleranceError: the difference is greater than the tolerance.
    """
    # bytes.isdigit accepts ASCII digits only. int() and str.isdigit accept signs, underscores or other scripts.
    if not timestamp.isdigit() or len(timestamp) > MAX_TIMESTAMP_DIGITS:
        raise InvalidTimestampError
    if abs(now - int(timestamp)) > tolerance:
        raise TimestampOutOfToleranceError


def check_signature_syntax(signature: bytes) -> None:
    """Check the format of the signature header, before any signature is computed.

    Raises:
        SignatureMismatchError: the header is not `v1,` and 64 lower-case hexadecimal digits.
    """
    if _match_signature(signature) is None:
        raise SignatureMismatchError("The signature header must be 'v1,' and 64 lower-case hexadecimal digits.")


def is_signed(
    body: bytes,
    form: SignedContent,
    *,
    signature: bytes,
    timestamp: bytes,
    keys: Iterable[SigningKey],
    pause: Pause = lambda: None,
) -> bool:
    """Whether `signature` is the signature of `body`, in the given form, with one of `keys`.

    Args:
        body: the request's body.
        form: the form to check.
        signature: the signature header's value.
        timestamp: the timestamp header's value, in epoch seconds, as the header spells it.
        keys: the keys of the accepted secrets.
        pause: called regularly while the canonical form of a large body is computed.
    """
    try:
        content = body if form == "raw" else canonical_form(body, pause=pause)
    except ValueError:
        return False
    # A loop instead of `any`, which would make a generator for each request.
    for key in keys:  # noqa: SIM110
        if hmac.compare_digest(key.signature(timestamp, content).encode(), signature):
            return True
    return False
