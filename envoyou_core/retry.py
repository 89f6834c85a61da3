"""When a failed event is retried, and when it is dead. See the guide, "Handling Failures"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from envoyou_core.errors import MAX_DELAY, ConfigurationError
from envoyou_core.inbox.history import MAX_HISTORY

__all__ = ["RetryPolicy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When to retry a failed event. The default is the guide's: three attempts, with delays of 2 and 4 seconds.

    Attributes:
        max_attempts: attempts before an event is dead; at least 1.
        initial_delay: seconds to wait after the first failed attempt.
        factor: by which the delay is multiplied after each attempt; at least 1.
        max_delay: the longest delay, in seconds.
        delays: seconds to wait after the first failed attempt, the second and so on, instead of an exponential
            back-off; the last delay is repeated.
        jitter: choose each delay at random between zero and its full value, so that events that failed together are
            not retried together.
        max_crashes: how many worker processes may die while they handle an event before it is dead; at least 1.
            Crashes are counted apart from attempts: a few deploys must not kill a healthy event, and a poison event
            must not loop for ever.
        max_interruptions: how many attempts at an event a database may interrupt that works again at once; further
            ones count as failures of the handler. From 0 to 20. Attempts that fail because the database does not
            answer are not limited.

    Raises:
        ConfigurationError: a value is out of range.

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
    max_interruptions: int = 5

    def __post_init__(self) -> None:
        if self.max_attempts < 1 or self.max_crashes < 1:
            raise ConfigurationError("max_attempts and max_crashes must be at least 1")
        if not 0 <= self.max_interruptions <= MAX_HISTORY:
            # They are counted in the history of the event.
            raise ConfigurationError(
                f"max_interruptions must be between 0 and {MAX_HISTORY}, got {self.max_interruptions}"
            )
        if not all(0 <= delay <= MAX_DELAY for delay in (self.initial_delay, self.max_delay, *self.delays)):
            raise ConfigurationError("delays must be between 0 seconds and 100 years")
        if not 1 <= self.factor < float("inf"):
            raise ConfigurationError("factor must be a finite number of at least 1")

    @classmethod
    def patient(cls) -> RetryPolicy:
        """Six attempts: the guide's delays, then one minute, ten minutes and one hour."""
        return cls(max_attempts=6, delays=(2.0, 4.0, 60.0, 600.0, 3600.0))

    def delay_after(self, attempt: int) -> float:
        """Seconds to wait after failed attempt number `attempt`, counted from 1."""
        delay = self._full_delay_after(attempt)
        if not self.jitter:
            return delay
        import random

        return random.uniform(0.0, delay)

    def _full_delay_after(self, attempt: int) -> float:
        if self.delays:
            return self.delays[min(attempt, len(self.delays)) - 1]
        try:
            return min(self.initial_delay * self.factor ** (attempt - 1), self.max_delay)
        except OverflowError:
            return self.max_delay
