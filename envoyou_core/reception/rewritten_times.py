"""Finds the timestamp that was signed, if something between the sender and the verification has replaced it.

The timestamp is a part of the signed content, so the right one is recognised by the signature. Pure.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Final

from envoyou_core.reception.canonical import canonical_form
from envoyou_core.reception.signature import SigningKey

__all__ = ["epoch_seconds", "find_signed_time"]

HOUR: Final = 3_600
"""The greatest difference of which every second is tried."""

QUARTER: Final = 900
MAX_OFFSET: Final = 14 * HOUR
"""Time zones differ from UTC by quarters of an hour, up to this."""

MAX_HASHED: Final = 1_000_000_000
"""Bytes: a second or two. Every second is tried with a body up to 64 KiB."""

UNITS: Final = (1, 1_000, 1_000_000, 1_000_000_000)
"""The parts of a second in which a clock may count."""


def epoch_seconds(text: bytes) -> int | None:
    """Return the time that `text` says: seconds or parts of a second since 1970, ISO 8601 or a date of HTTP.

    Examples:
        >>> epoch_seconds(b"1796000000123"), epoch_seconds(b"2026-11-30T00:53:20Z")
        (1796000000, 1796000000)
    """
    words = text.decode("latin-1").strip()
    with suppress(ValueError, OverflowError):
        number = float(words)
        # A time before 1970 or after 5138 has another unit.
        return next((int(number / unit) for unit in UNITS if 0 < number / unit < 1e11), None)
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        with suppress(ValueError, OverflowError):
            at = parse(words)
            return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
    return None


def find_signed_time(
    body: bytes, *, signature: bytes, timestamp: bytes, keys: Sequence[SigningKey], now: float
) -> int | None:
    """Return the time in epoch seconds with which the signature matches; `None` if none was found.

    Args:
        body: the body.
        signature: the value of its header.
        timestamp: the value of its header: seconds since 1970, or a time in another form.
        keys: the keys of the accepted secrets.
        now: when the request was received, in epoch seconds.
    """
    contents = [body]
    with suppress(ValueError):
        contents.append(canonical_form(body))
    tries = MAX_HASHED // (len(body) + 1) // len(keys)
    for second in islice(_seconds(epoch_seconds(timestamp), int(now)), tries):
        text = b"%d" % second
        for key in keys:
            for content in contents:
                if hmac.compare_digest(key.signature(text, content).encode(), signature):
                    return second
    return None


def _seconds(given: int | None, now: int) -> Iterator[int]:
    """Yield the seconds around both times, and both in each time zone."""
    centers = [now] if given is None else [given, now]
    for distance in (*range(HOUR), *range(HOUR, MAX_OFFSET + 1, QUARTER)):
        for center in centers:
            yield center - distance
            yield center + distance
