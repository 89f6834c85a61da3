"""When a failed event is tried again, and when it is dead. See the guide, "Handling Failures"."""

from __future__ import annotations

import random
from collections.abc import Sequence
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
        delays: seconds after the first failed attempt, the second and so on, instead of a geometric series; the last
            one stands for all that follow.
        jitter: draw each delay from zero up to what it would be, so that events that failed together, for the same
            reason, do not come back together.
        max_crashes: how often the process may die over an event before it is dead, one or more. Crashes are counted
            apart from attempts: a few deploys must not kill a healthy event, nor a poisonous one loop for ever.

    Raises:
        ConfigurationError: a number that makes no sense.

    Examples:
        >>> [RetryPolicy().delay_after(attempt) for attempt in (1, 2)]
        [2.0, 4.0]
        >>> [RetryPolicy.patient().delay_after(attempt) for attempt in (1, 2, 3, 4, 5)]
        [2.0, 4.0, 60.0, 600.0, 3600.0]
    """

    max_attempts: int = 3
    initial_delay: float = 2.0
    factor: float = 2.0
    max_delay: float = 3600.0
    delays: Sequence[float] = ()
    jitter: bool = False
    max_crashes: int = 5

    def __post_init__(self) -> None:
        if self.max_attempts < 1 or self.max_crashes < 1:
            raise ConfigurationError("max_attempts and max_crashes are one or more")
        if not all(0 <= delay <= LONGEST_DELAY for delay in (self.initial_delay, self.max_delay, *self.delays)):
            raise ConfigurationError("delays are seconds, from zero to a hundred years")
        if not 1 <= self.factor < float("inf"):
            raise ConfigurationError("the factor is a number, one or more")

    @classmethod
    def patient(cls) -> RetryPolicy:
        """Six attempts: after the guide's delays, others of a minute, ten minutes and an hour."""
        return cls(max_attempts=6, delays=(2.0, 4.0, 60.0, 600.0, 3600.0))

    def delay_after(self, attempt: int) -> float:
        """Seconds to wait after the failed attempt of that number, counted from one."""
        delay = self._full_delay_after(attempt)
        return random.uniform(0.0, delay) if self.jitter else delay

    def _full_delay_after(self, attempt: int) -> float:
        if self.delays:
            return self.delays[min(attempt, len(self.delays)) - 1]
        try:
            return min(self.initial_delay * self.factor ** (attempt - 1), self.max_delay)
        except OverflowError:
            return self.max_delay
