"""Compares the clock of this machine with that of the platform."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from envoyou_core.doctor.findings import Finding

__all__ = ["check_clock", "clock_finding"]

CHECK: Final = "clock"

TIMEOUT: Final = 5.0
"""Seconds."""

TOLERATED: Final = 5.0
"""Seconds of difference that are not worth a word. The header has whole seconds, and the answer has travelled."""

ADVICE: Final = "synchronize the clock of this machine, for example with chrony or systemd-timesyncd"


def check_clock(base_url: str, *, tolerance: float, now: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Compare the clock with the Date header of the management API. Its answer need not be a success.

    Args:
        base_url: the URL of the API.
        tolerance: seconds by which a timestamp may differ.
        now: returns epoch seconds.
    """
    request = Request(base_url, method="HEAD")  # noqa: S310 - the scheme is checked by the caller
    before = now()
    try:
        with urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310 - as above
            date = answer.headers.get("Date")
    except HTTPError as answer:
        with answer:
            date = answer.headers.get("Date")
    except OSError as error:
        reason = getattr(error, "reason", error)
        yield Finding.warning(
            CHECK,
            f"the clock was not compared, because {base_url} cannot be reached: {reason}",
            "allow the connection, or compare the clock in another way, such as `timedatectl`",
        )
        return
    yield clock_finding(date, (before + now()) / 2, tolerance=tolerance, source=base_url)


def clock_finding(date: str | None, now: float, *, tolerance: float, source: str) -> Finding:
    """Compare a Date header with a clock.

    Args:
        date: the header's value.
        now: epoch seconds of the clock when the header was written.
        tolerance: seconds by which a timestamp may differ.
        source: where the header is from.
    """
    try:
        difference = now - parsedate_to_datetime(date or "").timestamp() - 0.5
    except ValueError:
        return Finding.warning(
            CHECK, f"the clock was not compared, because {source} sends no valid Date header", "name the right URL"
        )
    text = f"the clock is {abs(difference):.0f} s {'ahead of' if difference > 0 else 'behind'} that of {source}"
    if abs(difference) <= TOLERATED:
        return Finding.ok(CHECK, f"the clock agrees with that of {source}")
    if abs(difference) >= tolerance:
        return Finding.problem(CHECK, f"{text}: deliveries are answered 401", ADVICE)
    return Finding.warning(CHECK, f"{text}; deliveries are accepted up to {tolerance:.0f} s", ADVICE)
