"""Durations in buckets, which can be added up: over processes, minutes and types."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

__all__ = ["BOUNDS", "BUCKETS", "NO_BUCKETS", "add_buckets", "bucket_of", "quantile"]

BOUNDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0
)  # fmt: skip
"""The upper bounds of the buckets in seconds, each included. The last bucket has none."""

BUCKETS: Final = len(BOUNDS) + 1
"""The number of buckets."""

Buckets = tuple[int, ...]
"""How many durations are in each bucket."""

NO_BUCKETS: Final[Buckets] = (0,) * BUCKETS


def bucket_of(seconds: float) -> int:
    """Return the bucket of a duration.

    Examples:
        >>> bucket_of(0.001), bucket_of(0.002), bucket_of(7200.0)
        (0, 1, 17)
    """
    return bisect_left(BOUNDS, seconds)


def add_buckets(several: Iterable[Sequence[int]]) -> Buckets:
    """Add histograms up."""
    return tuple(map(sum, zip(*[*several, NO_BUCKETS], strict=True)))


def quantile(buckets: Sequence[int], share: float) -> float | None:
    """Return the duration in seconds that `share` of all do not exceed, interpolated within its bucket.

    In the last bucket it is that bucket's lower bound, because it has no upper one. `None` if there are no durations.

    Args:
        buckets: how many durations are in each bucket.
        share: more than 0 and at most 1; 0.95 for the 95th percentile.
    """
    number = sum(buckets)
    if not number:
        return None
    rank = share * number
    # Rounding may leave the rank above the sum by a hair.
    bucket = next((last for last, reached in enumerate(accumulate(buckets)) if reached >= rank), len(buckets) - 1)
    below = sum(buckets[:bucket])
    lower = BOUNDS[bucket - 1] if bucket else 0.0
    if bucket >= len(BOUNDS):
        return lower
    return lower + (BOUNDS[bucket] - lower) * (rank - below) / buckets[bucket]
