"""Handlers and the application share a loop: sync ones do not block it, async ones use resources that belong to it."""

import asyncio
import threading
from contextlib import asynccontextmanager
from queue import Queue
from typing import Annotated

from fastapi import Depends, FastAPI
from pydantic import BaseModel

from envoyou_core import Event, RetryPolicy
from envoyou_core.inbox import NewEvent
from envoyou_core.observability import Settled
from envoyou_core.testing import sample_event
from envoyou_fastapi import create_router
from tests.fastapi.conftest import PATH, PATIENCE, TestClient, deliver

HANDLERS = 100


async def test_blocking_sync_handlers_do_not_block_the_loop(make_webhooks):
    """Each handler blocks until the loop has made progress, which it would not if the handler ran on the loop."""
    webhooks = make_webhooks(concurrency=4)
    loop = asyncio.get_running_loop()
    begun, handled = asyncio.Queue(), []

    @webhooks.on("*")
    def block(event):
        goes_on = threading.Event()
        loop.call_soon_threadsafe(begun.put_nowait, goes_on)
        handled.append(goes_on.wait(PATIENCE))

    app = FastAPI()
    app.include_router(create_router(webhooks), prefix=PATH)

    async with app.router.lifespan_context(app), asyncio.timeout(2 * PATIENCE):
        for _ in range(HANDLERS):
            webhooks.inbox.add(NewEvent(sample_event()))
        webhooks.wake()
        at_once = [await begun.get() for _ in range(4)]
        assert handled == [], "the loop went on while all slots were blocked"
        for goes_on in at_once:
            goes_on.set()
        for _ in range(HANDLERS - len(at_once)):
            (await begun.get()).set()
    assert handled == [True] * HANDLERS


class Pool:
    """A resource that belongs to one event loop, like a connection of an async driver."""

    def __init__(self):
        self._loop = asyncio.get_running_loop()

    def ask(self):
        assert asyncio.get_running_loop() is self._loop
        return "answered"


def test_a_handler_gets_what_a_dependency_would_give_it(webhooks):
    """As in `docs/fastapi-guide.md`: the lifespan opens the resource, path operations and handlers share it."""
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


class Customer(BaseModel):
    id: str
    email: str


def test_a_typed_handler_gets_a_model_of_pydantic(make_webhooks):
    """On the loop of the application; an object that does not fit fails the handler, naming the field and no value."""
    webhooks = make_webhooks(retry=RetryPolicy(max_attempts=1))
    handled, settled = Queue(), Queue()
    webhooks.subscribe(lambda notice: isinstance(notice, Settled) and settled.put(notice.error))

    @webhooks.on("user.created")
    async def welcome(event: Event[Customer]) -> None:
        handled.put(event.data.object)

    app = FastAPI()
    app.include_router(create_router(webhooks), prefix=PATH)
    with TestClient(app) as client:
        deliver(client, sample_event(object={"id": "user_1", "email": "ada@example.com"}))
        assert handled.get(timeout=PATIENCE) == Customer(id="user_1", email="ada@example.com")
        assert settled.get(timeout=PATIENCE) is None
        deliver(client, sample_event(object={"id": "user_2", "email": ["not text"]}))
        error = settled.get(timeout=PATIENCE)
    assert error == "InvalidPayloadError: data.object is not a Customer: string_type - at `$.email`"
    assert handled.empty()
