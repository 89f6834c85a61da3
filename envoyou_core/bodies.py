"""A request body that cannot be read: what the failure of a server's body reader means.

Servers raise exceptions of their own for a malformed body and for a connection that was lost, and a framework may wrap
them in its own. None of these classes is imported here, because each belongs to an optional dependency.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from envoyou_core.errors import UnreadableBodyError, WebhookError
from envoyou_core.http import CLIENT_CLOSED_REQUEST

__all__ = ["DisconnectedError", "incomplete", "unreadable"]


class DisconnectedError(WebhookError):
    """The sender closed the connection before the body was complete (499).

    The status is the one that nginx, and others after it, log for such a request. The sender does not see it, but ASGI
    middleware logs an error if nothing is answered.
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
        "SSLEOFError",  # ssl, which not every server needs
        "SSLZeroReturnError",
    }
)


def unreadable(error: Exception) -> WebhookError:
    """The refusal for a body whose reader raised `error`: 499 if the sender disconnected, 400 otherwise.

    Its detail is the class of the error without its text, which may quote the body.
    """
    if isinstance(error, WebhookError):
        return error
    *_, cause = _causes(error)
    names = {kind.__name__ for kind in type(cause).__mro__}
    if isinstance(cause, DISCONNECTED) or names & DISCONNECTED_NAMES:
        return DisconnectedError(_class_name(cause))
    return UnreadableBodyError(detail=_class_name(cause))


def incomplete(size: int, length: int) -> DisconnectedError:
    """The refusal for a body of which only `size` bytes of `length` declared ones arrived."""
    return DisconnectedError(f"the body ended after {size} of {length} bytes")


def _class_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on. A framework's wrapper says less than what it wraps."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__
