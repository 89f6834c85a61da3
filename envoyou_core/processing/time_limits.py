"""Async functions that end in time, or are cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from envoyou_core.errors import HandlerTimeoutError

__all__ = ["time_limited"]


def time_limited(function: Callable[..., Awaitable[Any]], seconds: float | None) -> Callable[..., Awaitable[Any]]:
    """The same async function, with an end.

    Args:
        function: what is called; it is cancelled where it takes longer, and `HandlerTimeoutError` raised instead.
        seconds: the seconds that it may take; `None` for as long as it likes.
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
                # The function's own.
                raise
            raise HandlerTimeoutError(limit) from error

    return limited
