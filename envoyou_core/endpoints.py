"""Marks the views, routes and entries that receive webhooks, so that a test kit finds them in an application."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from envoyou_core.webhooks import Webhooks

__all__ = ["EndpointMark", "mark_endpoint", "mark_of"]

_ATTRIBUTE: Final = "__envoyou_endpoint__"


@dataclass(frozen=True, slots=True)
class EndpointMark:
    """What is known of an object that receives webhooks.

    Attributes:
        current_webhooks: returns the `Webhooks` that receive, in the framework's context.
        path: its path; `None` if the framework's routes know it.
    """

    current_webhooks: Callable[[], Webhooks]
    path: str | None = None


def mark_endpoint(endpoint: Any, current_webhooks: Callable[[], Webhooks], *, path: str | None = None) -> None:
    """Mark a view, a route or an application as one that receives webhooks.

    Args:
        endpoint: the function, class or object.
        current_webhooks: returns the `Webhooks` that receive.
        path: its path, if no route of the framework has it.
    """
    setattr(endpoint, _ATTRIBUTE, EndpointMark(current_webhooks, path))


def mark_of(endpoint: object) -> EndpointMark | None:
    """Return the mark of an object, or of its class; `None` if it does not receive webhooks."""
    mark = getattr(endpoint, _ATTRIBUTE, None)
    return mark if isinstance(mark, EndpointMark) else None
