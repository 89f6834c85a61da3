"""Errors for request bodies that cannot be read: the sender disconnected, or the body is malformed.

Servers raise exceptions of their own for both, and frameworks may wrap them. They are recognised by name, because each
belongs to an optional dependency.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from envoyou_core.errors import UnreadableBodyError, WebhookError
from envoyou_core.http import CLIENT_CLOSED_REQUEST

__all__ = ["DisconnectedError", "as_body_error", "incomplete_body"]


class DisconnectedError(WebhookError):
    """The sender closed the connection before the body was complete (499).

    nginx and other servers log this status for such a request. The sender does not receive the response, but ASGI
    middleware logs an error if there is none.
    """

    status = CLIENT_CLOSED_REQUEST
    code = "disconnected"
    reason = "disconnected"
    default_message = "The sender closed the connection before the body was complete."


DISCONNECTED: Final = (ConnectionError, TimeoutError, EOFError)

DISCONNECTED_NAMES: Final = frozenset(
    {
        "ClientDisconnect",  # Starlette
        "ClientDisconnected",  # Werkzeug
        "NoMoreData",  # gunicorn
        "SSLEOFError",  # ssl, an optional module
        "SSLZeroReturnError",
    }
)


def as_body_error(error: Exception) -> WebhookError:
    """Convert an exception that reading the body has raised: 499 if the sender disconnected, 400 otherwise.

    The detail names the exception's class and leaves out its text, which may quote the body.
    """
    if isinstance(error, WebhookError):
        return error
    *_, cause = _causes(error)
    names = {kind.__name__ for kind in type(cause).__mro__}
    if isinstance(cause, DISCONNECTED) or names & DISCONNECTED_NAMES:
        return DisconnectedError(_class_name(cause))
    return UnreadableBodyError(detail=_class_name(cause))


def incomplete_body(size: int, length: int) -> DisconnectedError:
    """Create the error for a body that ended after `size` of `length` declared bytes."""
    return DisconnectedError(f"the body ended after {size} of {length} bytes")


def _class_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and the chain of its causes. The last one is more specific than a framework's wrapper."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__
