"""Handlers and the application share a loop: sync ones are not felt on it, async ones use what is open there."""

import asyncio
import time
from contextlib import asynccontextmanager
from queue import Queue
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI

from envoyou_core.inbox import NewEvent
from envoyou_core.testing import sample_event
from envoyou_fastapi import create_router
from tests.fastapi.conftest import PATH, PATIENCE, TestClient, deliver

HANDLERS = 100
BLOCKED = 0.05
"""Seconds that each handler blocks its thread: far more than the lag that is allowed."""

ROUNDS = 3
FLOOR = 0.01
"""Seconds of lag below which a difference says nothing: a thread of Python's may keep the others waiting so long."""


async def lags(until):
    """By how many seconds the loop was late, each time it was to go on after a millisecond, until that is done."""
    found = []
    while not until.done():
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        found.append(time.perf_counter() - began - 0.001)
    return found


def p99(values):
    return sorted(values)[int(0.99 * len(values))]


@pytest.mark.slow
async def test_sync_handlers_that_block_are_not_felt_on_the_loop(webhooks):
    loop = asyncio.get_running_loop()
    handled = asyncio.Queue()

    @webhooks.on("*")
    def block(event):
        time.sleep(BLOCKED)
        loop.call_soon_threadsafe(handled.put_nowait, event.id)

    app = FastAPI()
    app.include_router(create_router(webhooks), prefix=PATH)

    async def work():
        for _ in range(HANDLERS):
            webhooks.inbox.add(NewEvent(sample_event()))
        webhooks.wake()
        async with asyncio.timeout(PATIENCE):
            for _ in range(HANDLERS):
                await handled.get()

    idle, busy = [], []
    async with app.router.lifespan_context(app):
        # Side by side, and the best of several rounds: other programs may get in the way of one.
        for _ in range(ROUNDS):
            began = time.perf_counter()
            busy.append(p99(await lags(asyncio.create_task(work()))))
            took = time.perf_counter() - began
            idle.append(p99(await lags(asyncio.create_task(asyncio.sleep(took / 2)))))
    print(
        f"\np99 of the loop's lag: idle {min(idle) * 1e3:.2f} ms, beside {HANDLERS} handlers {min(busy) * 1e3:.2f} ms"
    )
    assert min(busy) <= 2 * max(min(idle), FLOOR)


class Pool:
    """Stands for what belongs to one event loop, as connections of an async driver do."""

    def __init__(self):
        self._loop = asyncio.get_running_loop()

    def ask(self):
        assert asyncio.get_running_loop() is self._loop
        return "answered"


def test_a_handler_gets_what_a_dependency_would_give_it(webhooks):
    """As `docs/fastapi.md` says: the lifespan opens it, path operations and handlers find it at one place."""
    answers = Queue()
    opened = []

    @asynccontextmanager
    async def lifespan(app):
        opened.append(Pool())
        yield

    def pool() -> Pool:
        return opened[0]

    @webhooks.on("*")
    async def handle(event):
        answers.put(pool().ask())

    app = FastAPI(lifespan=lifespan)
    app.include_router(create_router(webhooks), prefix=PATH)

    @app.get("/ask")
    async def ask(found: Annotated[Pool, Depends(pool)]) -> str:
        return found.ask()

    with TestClient(app) as client:
        assert client.get("/ask").json() == "answered"
        assert deliver(client).status_code == 200
        assert answers.get(timeout=PATIENCE) == "answered"
