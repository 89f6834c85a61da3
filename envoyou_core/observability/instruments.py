"""The setting `instrument`: which libraries listen to the notices, by their names."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Final

from envoyou_core.errors import ConfigurationError

if TYPE_CHECKING:
    from envoyou_core.webhooks import Webhooks

__all__ = ["INSTRUMENTS", "instrument"]

INSTRUMENTS: Final = {"prometheus": "prometheus", "opentelemetry": "otel", "sentry": "sentry"}
"""The extra that each of them needs."""


def instrument(webhooks: Webhooks, names: Iterable[object]) -> None:
    """Call `instrument(webhooks)` of each of the named modules of `envoyou_core.observability`.

    Raises:
        ConfigurationError: a name is unknown, or the library is not installed.
    """
    if isinstance(names, str):
        raise ConfigurationError(f"instrument must be a list of names, got the text {names!r}")
    for name in names:
        if not isinstance(name, str) or name not in INSTRUMENTS:
            raise ConfigurationError(f"instrument must be some of {', '.join(INSTRUMENTS)}, got {name!r}")
        try:
            module = import_module(f"envoyou_core.observability.{name}")
        except ImportError as error:
            raise ConfigurationError(
                f"instrument names {name}, but {error.name} is not installed: "
                f"pip install 'envoyou-webhooks[{INSTRUMENTS[name]}]'"
            ) from error
        module.instrument(webhooks)
