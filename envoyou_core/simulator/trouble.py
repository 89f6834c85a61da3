"""Trouble on demand: what may go wrong between a platform and its receivers, reproducible by a seed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import Any, Final

from envoyou_core.errors import ConfigurationError
from envoyou_core.validation import check_seconds, is_number

__all__ = ["Trouble"]

REORDERING_WINDOW: Final = 0.5
"""The maximum delay of a reordered delivery, in seconds."""

SHARES: Final = (
    "duplicates",
    "reordering",
    "delays",
    "dropped_answers",
    "canonical_signatures",
    "pretty_bodies",
    "repeated_nonces",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What the platform does wrong, and how often. Nothing by default.

    A share is a number from 0 to 1. The same seed and the same calls choose the same deliveries.

    Attributes:
        seed: chooses the deliveries.
        duplicates: the share of deliveries that are made twice.
        reordering: the share of deliveries that are held back for up to half a second, so that others overtake.
        delays: the share of deliveries that are held back for up to `max_delay`.
        max_delay: in seconds.
        dropped_answers: the share of attempts whose answer is ignored, so that the delivery is repeated.
        canonical_signatures: the share of attempts that sign the canonical form instead of the raw bytes.
        pretty_bodies: the share of events whose body has line breaks and indentation.
        repeated_nonces: the share of events whose deliveries and attempts all have the same nonce.
        clock_skew: the seconds by which the clock of the timestamps is fast; negative if it is slow.

    Raises:
        ConfigurationError: a value is out of range.
    """

    seed: int = 0
    duplicates: float = 0.0
    reordering: float = 0.0
    delays: float = 0.0
    max_delay: float = 1.0
    dropped_answers: float = 0.0
    canonical_signatures: float = 0.0
    pretty_bodies: float = 0.0
    repeated_nonces: float = 0.0
    clock_skew: float = 0.0

    def __post_init__(self) -> None:
        if not (is_number(self.seed) and isinstance(self.seed, int)):
            raise ConfigurationError(f"seed must be an integer, got {self.seed!r}")
        for name in SHARES:
            share = getattr(self, name)
            if not (is_number(share) and 0 <= share <= 1):
                raise ConfigurationError(f"{name} must be a number from 0 to 1, got {share!r}")
        check_seconds("max_delay", self.max_delay, minimum=0.0)
        if not (is_number(self.clock_skew) and abs(self.clock_skew) < float("inf")):
            raise ConfigurationError(f"clock_skew must be a finite number of seconds, got {self.clock_skew!r}")

    @classmethod
    def from_texts(cls, texts: list[str]) -> Trouble:
        """Read `NAME=VALUE` texts, such as `duplicates=0.2`.

        Raises:
            ConfigurationError: a text has another form, an unknown name or a value out of range.

        Examples:
            >>> Trouble.from_texts(["duplicates=0.2", "seed=7"]).duplicates
            0.2
        """
        names = [field.name for field in fields(cls)]
        values: dict[str, Any] = {}
        for text in texts:
            name, _, value = text.partition("=")
            if name not in names:
                raise ConfigurationError(f"expected NAME=VALUE with one of {', '.join(names)}, got {text!r}")
            try:
                values[name] = int(value) if name == "seed" else float(value)
            except ValueError:
                raise ConfigurationError(f"{name} must be a number, got {value!r}") from None
        return cls(**values)

    def hits(self, name: str, *numbers: int) -> bool:
        """Whether the trouble `name` happens to what `numbers` identify."""
        share: float = getattr(self, name)
        return share > 0 and self._fraction(name, *numbers) < share

    def hold(self, delivery: int) -> float:
        """Return the seconds for which the first attempt of a delivery is held back."""
        held = 0.0
        if self.hits("reordering", delivery):
            held += REORDERING_WINDOW * self._fraction("window", delivery)
        if self.hits("delays", delivery):
            held += self.max_delay * self._fraction("delay", delivery)
        return held

    def _fraction(self, name: str, *numbers: int) -> float:
        """Return a number from 0 to below 1 that depends on the seed and the arguments only."""
        text = f"{self.seed}/{name}/{'/'.join(map(str, numbers))}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest()) / 2**48
