"""Secrets, signed content, `sign` and the check of a signature: pure functions over bytes.

See the guide, "Webhook Signature Verification". The signature is `v1,` and the hexadecimal HMAC-SHA256, under the
secret, of the timestamp as the header spells it, a full stop, and the signed content.
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
"""One signing secret. A string stands for its UTF-8 bytes, prefix included."""

Secrets = Secret | Sequence[Secret]
"""One signing secret, or several while one is rotated out, newest first."""

SignedContent = Literal["raw", "canonical"]
"""What was signed: `raw`, the bytes as sent, or `canonical`, the guide's Python recipe over the parsed body."""

SIGNED_CONTENT_FORMS: tuple[SignedContent, ...] = ("raw", "canonical")
SCHEME = b"v1,"
MAX_TIMESTAMP_DIGITS = 12

_match_signature = re.compile(rb"v1,[0-9a-f]{64}").fullmatch

_BLOCK_SIZE = 64
_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))


class SigningKey:
    """One secret, made ready: the two hash states of its HMAC, which every signature starts from.

    Args:
        secret: the secret.
        name: what an error calls it.

    Raises:
        ConfigurationError: the secret is empty, blank, or neither `str` nor `bytes`.
    """

    # Copying two prepared states costs half of what keying an HMAC anew does.
    __slots__ = ("_inner", "_outer")

    def __init__(self, secret: Secret, name: str = "the webhook secret") -> None:
        if not isinstance(secret, str | bytes):
            raise ConfigurationError(f"{name} must be str or bytes, got {type(secret).__name__}{hint_for(secret)}")
        if not secret.strip():
            raise ConfigurationError(f"{name} is empty")
        try:
            key = secret.encode() if isinstance(secret, str) else secret
        except UnicodeEncodeError:
            raise ConfigurationError(f"{name} is not valid text") from None
        remember_secret(key)
        if len(key) > _BLOCK_SIZE:
            key = hashlib.sha256(key).digest()
        key = key.ljust(_BLOCK_SIZE, b"\0")
        self._inner = hashlib.sha256(key.translate(_INNER_PAD))
        self._outer = hashlib.sha256(key.translate(_OUTER_PAD))

    def signature(self, timestamp: bytes, content: bytes) -> bytes:
        """The signature header's value over `content`, sent at `timestamp`."""
        inner = self._inner.copy()
        inner.update(timestamp + b".")
        inner.update(content)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return SCHEME + outer.hexdigest().encode()

    def fingerprint(self) -> str:
        """Tells this key from others without revealing it: 128 bits of an HMAC under it, in hexadecimal."""
        # A timestamp is all digits, so no delivery is ever signed like this.
        return self.signature(b"fingerprint", b"").removeprefix(SCHEME).decode()[:32]

    def __repr__(self) -> str:
        return "SigningKey(...)"


def signing_keys(secrets: Secrets) -> tuple[SigningKey, ...]:
    """The keys that deliveries are checked against: of one secret or of several, newest first.

    Raises:
        ConfigurationError: there is none, or one of them cannot be a secret: it is empty, or has white space or quotes
            around it or an invisible character in it.
    """
    if isinstance(secrets, str | bytes):
        return (_checked_key(secrets, "the webhook secret"),)
    # A subclass of tuple may be a row of a database, whose columns are not all secrets.
    if not isinstance(secrets, list) and type(secrets) is not tuple:
        raise ConfigurationError(
            f"the webhook secret must be str, bytes or a list of these, got {type(secrets).__name__}{hint_for(secrets)}"
        )
    if not secrets:
        raise ConfigurationError("there is no webhook secret")
    return tuple(
        _checked_key(secret, f"webhook secret {position} of {len(secrets)}")
        for position, secret in enumerate(secrets, start=1)
    )


def _checked_key(secret: Secret, name: str) -> SigningKey:
    key = SigningKey(secret, name)
    check_secret_text(secret, name)
    return key


def hint_for(value: object) -> str:
    """What an error adds if `value` is given as a secret and is of a type that is often mistaken for one."""
    if hasattr(value, "get_secret_value"):
        return "; give its .get_secret_value()"
    if isinstance(value, set | frozenset):
        return ", which has no order; give a list, newest first"
    if isinstance(value, Mapping):
        return ", which names several endpoints or columns; give the secrets of one endpoint"
    if isinstance(value, tuple):
        return "; if it is a row of a database, give the column that holds the secret"
    return ""


def sign(body: bytes, *, secret: Secret, timestamp: int | str, signed_content: SignedContent = "raw") -> str:
    """The value of the signature header, `v1,<hex>`. See the guide, "Webhook Signature Verification".

    Args:
        body: the request's body.
        secret: the endpoint's signing secret.
        timestamp: when it is sent, in epoch seconds, as the timestamp header will spell it.
        signed_content: `raw` signs the bytes of `body`; `canonical` signs the guide's Python recipe of them.

    Raises:
        ConfigurationError: the secret is empty, or `signed_content` is neither of the two.
        ValueError: `canonical` is asked for and `body` has no canonical form.

    Examples:
        >>> sign(b"{}", secret="whsec_test", timestamp=1640995200)[:12]
        'v1,ee77a584a'
    """
    if signed_content not in SIGNED_CONTENT_FORMS:
        raise ConfigurationError(f"signed_content is one of {SIGNED_CONTENT_FORMS}, not {signed_content!r}")
    content = body if signed_content == "raw" else canonical_form(body)
    return SigningKey(secret).signature(str(timestamp).encode(), content).decode()


def check_timestamp(timestamp: bytes, *, tolerance: float, now: float) -> None:
    """Hold the timestamp header against the clock. See the guide, "Recommended Validation Steps".

    Args:
        timestamp: the header's value: epoch seconds in 1 to 12 ASCII digits.
        tolerance: how many seconds it may lie in the past or in the future.
        now: epoch seconds.

    Raises:
        InvalidTimestampError: it is malformed.
        TimestampOutOfToleranceError: it lies too far from now.
    """
    # bytes.isdigit knows only ASCII, where int() and str.isdigit take signs, underscores and other scripts.
    if not timestamp.isdigit() or len(timestamp) > MAX_TIMESTAMP_DIGITS:
        raise InvalidTimestampError
    if abs(now - int(timestamp)) > tolerance:
        raise TimestampOutOfToleranceError


def check_signature_syntax(signature: bytes) -> None:
    """Refuse a signature header that no signature can equal, before anything is computed.

    Raises:
        SignatureMismatchError: it is not `v1,` and 64 lower-case hexadecimal digits.
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
    """Whether `signature` is that of `body` in the given form, under one of `keys`.

    Args:
        body: the request's body.
        form: the form that is tried.
        signature: the signature header's value.
        timestamp: the timestamp header's value, in epoch seconds, as it was spelt.
        keys: of the secrets that are accepted.
        pause: called every now and then while the canonical form of a large body is computed.
    """
    try:
        content = body if form == "raw" else canonical_form(body, pause=pause)
    except ValueError:
        return False
    return any(hmac.compare_digest(key.signature(timestamp, content), signature) for key in keys)
