"""`webhooks.analytics`: the figures of a window."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from envoyou_core.analytics.rollups import Tally
from envoyou_core.analytics.summary import Summary, summarize

__all__ = ["Analytics"]

DAY = timedelta(hours=24)


class Analytics:
    """Reads what was counted. It never reads the table of events, so it costs the same however large that is.

    Args:
        read: sums up the roll-ups of a window.
        flush: stores what this process has counted.
        clock: returns epoch seconds.
    """

    def __init__(
        self,
        read: Callable[[datetime, datetime], list[Tally]],
        *,
        flush: Callable[[], object],
        clock: Callable[[], float],
    ) -> None:
        self._read = read
        self._flush = flush
        self._clock = clock

    def summary(self, window: timedelta = DAY, *, until: datetime | None = None) -> Summary:
        """Return the figures of a window that ends now, from all processes.

        Those of this process are complete; the others store theirs every ten seconds. The window begins with the
        minute that it touches, or with the hour if it is more than 48 hours old, or the day after 30 days. See the
        guide, "Monitoring and Analytics".

        Args:
            window: its length, up to two years.
            until: its end, if that is not now.

        Raises:
            ValueError: the window is not longer than 0, or `until` has no time zone.
        """
        if window <= timedelta(0):
            raise ValueError(f"window must be longer than 0, got {window}")
        if until is not None and until.tzinfo is None:
            raise ValueError("until must have a time zone")
        self._flush()
        # What was counted in the current moment belongs to the window.
        end = datetime.fromtimestamp(self._clock(), UTC) if until is None else until.astimezone(UTC)
        tallies = self._read(end - window, end if until is not None else end + timedelta(microseconds=1))
        return summarize(tallies, end - window, end)
