"""Shows that a long migration goes on: lines on standard error, in a terminal and in the log of a deployment alike."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

__all__ = ["with_progress"]

INTERVAL: Final = 2.0
"""Seconds before the first line, and between two lines. A short migration shows nothing."""

Item = TypeVar("Item")


def with_progress(batches: Iterable[Item], total: int, title: str) -> Iterator[Item]:
    """Yield `batches`, and write every few seconds how many of them are done.

    Args:
        batches: the parts of the work.
        total: how many there are.
        title: what is done, such as `Filling in objects`.
    """
    shown_at = time.monotonic()
    for done, batch in enumerate(batches):
        if time.monotonic() - shown_at >= INTERVAL:
            shown_at = time.monotonic()
            # On a line of its own: `migrate` has written the name of the migration without a line break.
            sys.stderr.write(f"\n    {title}: {100 * done // total}%")
            sys.stderr.flush()
        yield batch
