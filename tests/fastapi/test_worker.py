"""The worker's lifetime, with the application's lifespan and without one."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from contextlib import asynccontextmanager
from queue import Queue
from typing import Annotated

import httpx2
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.applications import Starlette
from starlette.routing import Mount

from envoyou_core import ConfigurationError
from envoyou_core.inbox import Status
from envoyou_core.observability import NoHandlers, WorkerStarted, WorkerStopped
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_fastapi import create_router
from tests.fastapi.conftest import PATH, PATIENCE, SECRET, TestClient, deliver


def make_app(webhooks, **options):
    app = FastAPI(**options)
    app.include_router(create_router(webhooks), prefix=PATH)

    @app.get("/loop")
    async def loop() -> int:
        return id(asyncio.get_running_loop())

    return app


def lives(webhooks):
    """Collect the notices about the worker's start and stop."""
    notices = []
    webhooks.subscribe(
        lambda notice: isinstance(notice, WorkerStarted | WorkerStopped) and notices.append(type(notice))
    )
    return notices


def test_async_handlers_run_on_the_loop_of_the_application(webhooks):
    ran_on = Queue()

    @webhooks.on("*")
    async def handle(event):
        ran_on.put(id(asyncio.get_running_loop()))

    with TestClient(make_app(webhooks)) as client:
        assert deliver(client).status_code == 200
        assert ran_on.get(timeout=PATIENCE) == client.get("/loop").json()


def test_async_contexts_around_async_handlers_run_on_the_loop_of_the_application(webhooks):
    ran_on = Queue()

    @webhooks.around_handler
    async def note(event, handler, attempt):
        yield
        ran_on.put(id(asyncio.get_running_loop()))

    @webhooks.on("*")
    async def handle(event): ...

    with TestClient(make_app(webhooks)) as client:
        assert deliver(client).status_code == 200
        assert ran_on.get(timeout=PATIENCE) == client.get("/loop").json()


def test_sync_handlers_do_not_block_the_loop_of_the_application(webhooks):
    begun, release = threading.Event(), threading.Event()
    ran_in = Queue()

    @webhooks.on("*")
    def handle(event):
        begun.set()
        assert release.wait(PATIENCE)
        ran_in.put(threading.current_thread())

    app = make_app(webhooks)
    app.add_api_route("/release", release.set, methods=["POST"])

    with TestClient(app) as client:
        assert deliver(client).status_code == 200
        assert begun.wait(PATIENCE)
        assert client.post("/release").status_code == 200
        assert ran_in.get(timeout=PATIENCE).name.startswith("envoyou-handler")


def test_the_worker_starts_and_stops_with_the_lifespan(webhooks, make_webhooks):
    event = sample_event()
    assert deliver(TestClient(make_app(make_webhooks(handoff="manual"))), event).status_code == 200
    handled = Queue()
    webhooks.on("*")(lambda event: handled.put(event.id))
    notices = lives(webhooks)

    with TestClient(make_app(webhooks)):
        # The events of an earlier process are handled without a request.
        assert handled.get(timeout=PATIENCE) == event.id
        assert notices == [WorkerStarted]
    assert notices == [WorkerStarted, WorkerStopped]
    assert webhooks.inbox.get(event.id).status is Status.PROCESSED

    with TestClient(make_app(webhooks)) as client:
        deliver(client)
        handled.get(timeout=PATIENCE)
    assert notices == 2 * [WorkerStarted, WorkerStopped]


def test_a_router_that_is_included_twice_has_one_worker(webhooks):
    webhooks.on("*")(print)
    notices = lives(webhooks)
    app = make_app(webhooks)
    app.include_router(create_router(webhooks), prefix="/again")
    with TestClient(app) as client:
        event = sample_event()
        assert deliver(client, event).json() == {"received": True}
        assert deliver(client, event, path="/again").json() == {"received": True, "duplicate": True}
    assert notices == [WorkerStarted, WorkerStopped]


def test_lifespan_of_the_application_encloses_the_workers(webhooks):
    webhooks.on("*")(print)
    notices = lives(webhooks)

    @asynccontextmanager
    async def lifespan(app):
        notices.append("app begins")
        yield {"pool": "the app's"}
        notices.append("app ends")

    app = make_app(webhooks, lifespan=lifespan)

    @app.get("/pool")
    def pool(request: Request) -> str:
        return request.state.pool

    with TestClient(app) as client:
        assert client.get("/pool").json() == "the app's"
    assert notices == ["app begins", WorkerStarted, WorkerStopped, "app ends"]


def test_running_handlers_are_finished_at_the_end(webhooks):
    begun = threading.Event()

    @webhooks.on("*")
    async def handle(event):
        begun.set()
        await asyncio.sleep(0.05)

    event = sample_event()
    with TestClient(make_app(webhooks)) as client:
        deliver(client, event)
        assert begun.wait(PATIENCE)
    assert webhooks.inbox.get(event.id).status is Status.PROCESSED


def test_an_application_without_handlers_starts_and_stores_events(webhooks):
    reported = threading.Event()
    webhooks.subscribe(lambda notice: isinstance(notice, NoHandlers) and reported.set())
    with TestClient(make_app(webhooks)) as client:
        assert deliver(client, sample_event(id="evt_1")).status_code == 200
        assert reported.wait(PATIENCE)
    assert webhooks.inbox.get("evt_1").status is Status.RECEIVED


@asynccontextmanager
async def client_without_lifespan(app):
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://testserver") as client:
        yield client


async def post(client, event):
    delivery = sign_delivery(event, secret=SECRET)
    return await client.post(PATH, content=delivery.body, headers=delivery.headers)


async def test_without_a_lifespan_the_first_event_starts_the_worker(webhooks):
    ran_on = asyncio.Queue()

    @webhooks.on("*")
    async def handle(event):
        ran_on.put_nowait(asyncio.get_running_loop())

    async with client_without_lifespan(make_app(webhooks)) as client, asyncio.timeout(PATIENCE):
        assert (await post(client, sample_event())).status_code == 200
        assert await ran_on.get() is asyncio.get_running_loop()
    async with webhooks.lifespan():
        pass  # the lifespan stops the worker that the event started


async def test_a_worker_does_not_inherit_the_context_of_the_request_that_starts_it(webhooks):
    request_id = contextvars.ContextVar("request_id", default="none")
    seen = asyncio.Queue()

    @webhooks.on("*")
    async def handle(event):
        seen.put_nowait(request_id.get())

    app = make_app(webhooks)

    async def with_request_id(scope, receive, send):
        request_id.set("req_1")
        await app(scope, receive, send)

    async with client_without_lifespan(with_request_id) as client, asyncio.timeout(PATIENCE):
        assert (await post(client, sample_event())).status_code == 200
        assert await seen.get() == "none"
    async with webhooks.lifespan():
        pass


def test_a_closed_loop_leaves_no_leases(webhooks):
    begun = asyncio.Event()

    @webhooks.on("*")
    async def handle(event):
        begun.set()
        await asyncio.Event().wait()

    event = sample_event()

    async def main():
        async with client_without_lifespan(make_app(webhooks)) as client, asyncio.timeout(PATIENCE):
            assert (await post(client, event)).status_code == 200
            await begun.wait()

    asyncio.run(main())
    record = webhooks.inbox.get(event.id)
    assert (record.status, record.attempts) == (Status.RECEIVED, 0)


def test_a_worker_whose_loop_was_closed_is_replaced(webhooks, until):
    # Without `with`, a TestClient runs each request on a new event loop, and closes it.
    @webhooks.on("*")
    async def handle(event):
        pass

    client = TestClient(make_app(webhooks))
    events = [sample_event() for _ in range(5)]
    for event in events:
        assert deliver(client, event).json() == {"received": True}

    def processed() -> bool:
        return all(webhooks.inbox.get(event.id).status is Status.PROCESSED for event in events)

    with client:
        # Much less than a lease: the workers of the closed loops have returned their claims.
        until(processed)


def nested(webhooks, **options):
    """Nest the router in two others, and include the innermost twice."""
    inner, outer, app = APIRouter(), APIRouter(), FastAPI(**options)
    inner.include_router(create_router(webhooks), prefix="/envoyou")
    outer.include_router(inner, prefix="/v1")
    outer.include_router(inner, prefix="/v2")
    app.include_router(outer, prefix="/hooks")
    return app


def test_routers_that_nest_have_one_worker_from_the_lifespan(webhooks):
    handled = Queue()
    webhooks.on("*")(lambda event: handled.put(event.id))
    notices = lives(webhooks)
    with TestClient(nested(webhooks)) as client:
        assert notices == [WorkerStarted]
        event = sample_event()
        assert deliver(client, event, path="/hooks/v1/envoyou").json() == {"received": True}
        assert deliver(client, event, path="/hooks/v2/envoyou").json() == {"received": True, "duplicate": True}
        assert handled.get(timeout=PATIENCE) == event.id
    assert notices == [WorkerStarted, WorkerStopped]


def test_a_router_that_has_a_lifespan_of_its_own_keeps_it(webhooks):
    webhooks.on("*")(print)
    notices = lives(webhooks)

    @asynccontextmanager
    async def lifespan(app):
        notices.append("router begins")
        yield
        notices.append("router ends")

    around, app = APIRouter(lifespan=lifespan), FastAPI()
    around.include_router(create_router(webhooks), prefix=PATH)
    app.include_router(around)
    with TestClient(app):
        pass
    assert notices == ["router begins", WorkerStarted, WorkerStopped, "router ends"]


def test_several_webhooks_in_one_application_have_a_worker_each(make_webhooks):
    first, second = make_webhooks(), make_webhooks(name="second")
    handled = Queue()
    first.on("*")(lambda event: handled.put(("first", event.id)))
    second.on("*")(lambda event: handled.put(("second", event.id)))
    app = make_app(first)
    app.include_router(create_router(second), prefix="/second")
    with TestClient(app) as client:
        event = sample_event()
        for path in (PATH, "/second"):
            assert deliver(client, event, path=path).json() == {"received": True}
        assert {handled.get(timeout=PATIENCE), handled.get(timeout=PATIENCE)} == {
            ("first", event.id),
            ("second", event.id),
        }


@pytest.mark.parametrize("mount", ["fastapi", "starlette"])
def test_a_mounted_application_starts_the_worker_with_the_first_event(webhooks, mount):
    # The lifespan of a mounted application does not run.
    handled, notices = Queue(), lives(webhooks)

    @webhooks.on("*")
    async def handle(event):
        handled.put((event.id, id(asyncio.get_running_loop())))

    inner = make_app(webhooks)
    if mount == "fastapi":
        outer = FastAPI()
        outer.mount("/api", inner)
    else:
        outer = Starlette(routes=[Mount("/api", inner)])
    with TestClient(outer) as client:
        assert notices == []
        event = sample_event()
        assert deliver(client, event, path=f"/api{PATH}").status_code == 200
        assert handled.get(timeout=PATIENCE) == (event.id, client.get("/api/loop").json())
    assert notices[0] is WorkerStarted


def test_a_mounted_application_whose_outer_one_has_the_lifespan_is_drained(webhooks):
    webhooks.on("*")(print)
    notices = lives(webhooks)
    outer = FastAPI(lifespan=webhooks.lifespan)
    outer.mount("/api", make_app(webhooks))
    with TestClient(outer) as client:
        assert notices == [WorkerStarted]
        assert deliver(client, path=f"/api{PATH}").status_code == 200
    assert notices == [WorkerStarted, WorkerStopped]


def get_db():
    yield "the db"


def test_depends_in_a_handler_is_refused_with_the_way_that_works(manual):
    def by_default(event, db=Depends(get_db)): ...  # noqa: B008

    def by_annotation(event, db: Annotated[str, Depends(get_db)]): ...

    for handler in (by_default, by_annotation):
        with pytest.raises(ConfigurationError, match=r"Depends\(get_db\).*call webhooks\.provide\('db', get_db\)"):
            manual.on("*")(handler)

    seen = []
    manual.provide("db", get_db)
    manual.on("*", name="works")(lambda event, db: seen.append(db))
    deliver(TestClient(make_app(manual)))
    assert manual.drain() == 1
    assert seen == ["the db"]
