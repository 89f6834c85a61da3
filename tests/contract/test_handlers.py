"""Types, contexts around handlers, what is provided and their own retries are the same behind every adapter."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from envoyou_core import Event, Handlers, RetryPolicy, User
from envoyou_core.testing import sample_event
from tests.contract.conftest import Serve
from tests.contract.test_afterwards import now, wait_for

TENANT: ContextVar[str] = ContextVar("tenant", default="none")

Seen = list[tuple[str, str, str, str, int]]


@pytest.mark.in_process
def test_a_handler_gets_its_type_its_context_what_is_provided_and_its_own_attempts(serve: Serve) -> None:
    handlers, seen = Handlers(), Seen()

    @handlers.around_handler
    def context(event: Event, handler: str, attempt: int) -> Iterator[None]:
        token = TENANT.set(f"tenant of {handler}")
        yield
        TENANT.reset(token)

    def shop() -> Iterator[str]:
        yield "shop"

    handlers.provide("shop", shop)
    twice = RetryPolicy(max_attempts=2, delays=[0.01])

    def note(kind: str, event: Event[User], shop: str, attempt: int) -> None:
        seen.append((kind, type(event.data.object).__name__, TENANT.get(), shop, attempt))
        if attempt == 1:
            raise OSError("once more")

    @handlers.on("user.created", name="sync", retry=twice)
    def keep(event: Event[User], shop: str, attempt: int) -> None:
        note("sync", event, shop, attempt)

    @handlers.on("user.created", name="async", retry=twice)
    async def welcome(event: Event[User], shop: str, attempt: int) -> None:
        note("async", event, shop, attempt)

    endpoint = serve(handlers, retry=RetryPolicy(max_attempts=1))
    endpoint.accepts(now(sample_event()))
    wait_for(lambda: len(seen) == 4)
    assert sorted(seen) == [
        (kind, "User", f"tenant of {kind}", "shop", attempt) for kind in ("async", "sync") for attempt in (1, 2)
    ]
