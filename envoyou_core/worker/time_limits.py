"""Time limits for async functions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from envoyou_core.errors import HandlerTimeoutError

__all__ = ["time_limited"]


def time_limited(function: Callable[..., Awaitable[Any]], seconds: float | None) -> Callable[..., Awaitable[Any]]:
    """Wrap an async function so that it is cancelled after `seconds` and raises `HandlerTimeoutError`.

    Args:
        function: the function to call.
        seconds: the time limit in seconds; `None` for no limit.
    """
    if seconds is None:
        return function
    limit = seconds

    async def limited(*arguments: Any, **named: Any) -> Any:
        timeout = asyncio.timeout(limit)
        try:
            async with timeout:
                return await function(*arguments, **named)
        except TimeoutError as error:
            if not timeout.expired():
                # Raised by the function itself.
                raise
            raise HandlerTimeoutError(limit) from error

    return limited
