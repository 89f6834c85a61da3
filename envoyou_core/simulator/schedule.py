"""When an event is delivered again: the guide's back-off, as a function of the attempt's number."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RetrySchedule"]

MILLISECONDS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySchedule:
    """The `retry_policy` of a webhook. The default delays are 0, 1, 2, 4 and 8 seconds. See the guide, "Retry Policy".

    Attributes:
        max_attempts: the first attempt included.
        backoff_multiplier: the factor from one delay to the next.
        initial_delay: the delay before the second attempt, in milliseconds.
    """

    max_attempts: int = 5
    backoff_multiplier: float = 2
    initial_delay: int = 1000

    def delay_before(self, attempt: int) -> float | None:
        """Return the seconds from the end of the attempt before to `attempt`; `None` if there is no such attempt.

        Args:
            attempt: its number, from 1.

        Examples:
            >>> [RetrySchedule().delay_before(attempt) for attempt in range(1, 7)]
            [0.0, 1.0, 2.0, 4.0, 8.0, None]
        """
        if attempt > self.max_attempts:
            return None
        if attempt <= 1:
            return 0.0
        return self.initial_delay * self.backoff_multiplier ** (attempt - 2) / MILLISECONDS
