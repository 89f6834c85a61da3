"""When a failed event is tried again, and when it is dead. See the guide, "Handling Failures"."""

from __future__ import annotations

from dataclasses import dataclass

from envoyou_core.errors import LONGEST_DELAY, ConfigurationError

__all__ = ["RetryPolicy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """The guide's by default: three attempts, 2 seconds after the first and 4 after the second.

    Attributes:
        max_attempts: attempts before an event is dead, one or more.
        initial_delay: seconds after the first failed attempt.
        factor: by which each delay is longer than the one before.
        max_delay: the longest delay, in seconds.
        max_crashes: how often the process may die over an event before it is dead, one or more. Crashes are counted
            apart from attempts: a few deploys must not kill a healthy event, nor a poisonous one loop for ever.

    Raises:
        ConfigurationError: a number that makes no sense.

    Examples:
        >>> [RetryPolicy().delay_after(attempt) for attempt in (1, 2)]
        [2.0, 4.0]
    """

    max_attempts: int = 3
    initial_delay: float = 2.0
    factor: float = 2.0
    max_delay: float = 3600.0
    max_crashes: int = 5

    def __post_init__(self) -> None:
        if self.max_attempts < 1 or self.max_crashes < 1:
            raise ConfigurationError("max_attempts and max_crashes are one or more")
        if not (0 <= self.initial_delay <= LONGEST_DELAY and 0 <= self.max_delay <= LONGEST_DELAY):
            raise ConfigurationError("delays are seconds, from zero to a hundred years")
        if not 1 <= self.factor < float("inf"):
            raise ConfigurationError("the factor is a number, one or more")

    def delay_after(self, attempt: int) -> float:
        """Seconds to wait after the failed attempt of that number, counted from one."""
        try:
            return min(self.initial_delay * self.factor ** (attempt - 1), self.max_delay)
        except OverflowError:
            return self.max_delay
