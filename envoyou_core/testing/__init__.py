"""Support for users' tests: sample events, signed deliveries, and the types of the pytest fixtures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from envoyou_core.testing.deliveries import SAMPLE_WEBHOOK_ID, Delivery, sample_event, sign_delivery
from envoyou_core.testing.factories import EventFields, LocationFields, make_event

if TYPE_CHECKING:
    from envoyou_core.testing.accepted import AcceptedEvent, AcceptedEvents
    from envoyou_core.testing.kit import AsyncDeliver, Deliver, UnhandledEventsWarning
    from envoyou_core.testing.results import DeliveryResult

__all__ = [
    "SAMPLE_WEBHOOK_ID",
    "AcceptedEvent",
    "AcceptedEvents",
    "AsyncDeliver",
    "Deliver",
    "Delivery",
    "DeliveryResult",
    "EventFields",
    "LocationFields",
    "UnhandledEventsWarning",
    "make_event",
    "sample_event",
    "sign_delivery",
]

# Commands that send deliveries import this package, and need no test kit.
_LOADED_ON_FIRST_USE = {
    "AcceptedEvent": "envoyou_core.testing.accepted",
    "AcceptedEvents": "envoyou_core.testing.accepted",
    "AsyncDeliver": "envoyou_core.testing.kit",
    "Deliver": "envoyou_core.testing.kit",
    "DeliveryResult": "envoyou_core.testing.results",
    "UnhandledEventsWarning": "envoyou_core.testing.kit",
}


def __getattr__(name: str) -> Any:
    if name not in _LOADED_ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LOADED_ON_FIRST_USE[name]), name)
