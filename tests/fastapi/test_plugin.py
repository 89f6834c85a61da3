"""The pytest plugin in the tests of FastAPI and Starlette applications."""

from tests.core.test_plugin import run  # noqa: F401 - a fixture

pytest_plugins = ["pytester"]

APP = """
import asyncio
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Mount

from envoyou_core import Event, Handlers, Webhooks
from envoyou_core.asgi import webhooks_entry
from envoyou_fastapi import create_router
from envoyou_fastapi.starlette import create_routes, lifespan

handlers = Handlers()
state = {}

class Customer(BaseModel):
    id: str
    email: str

@handlers.on("user.created")
async def welcome(event: Event[Customer]) -> None:
    state["loop"] = asyncio.get_running_loop()
    print("Welcome,", event.data.object.email)

def new_webhooks():
    webhooks = Webhooks(secret="whsec_test", inbox="sqlite:///never_created.db")
    webhooks.include(handlers)
    return webhooks

webhooks = new_webhooks()

@asynccontextmanager
async def own_lifespan(app):
    state["began_on"] = asyncio.get_running_loop()
    yield
    state.clear()

def create_app(prefix="/webhooks/envoyou"):
    app = FastAPI(lifespan=own_lifespan)
    app.include_router(create_router(webhooks), prefix=prefix)
    return app

app = create_app()

def nested():
    inner, app = APIRouter(prefix="/v1"), FastAPI()
    inner.include_router(create_router(webhooks), prefix="/envoyou")
    app.include_router(inner, prefix="/api")
    return app

def mounted():
    app = FastAPI()
    app.mount("/shop", create_app("/hooks"))
    return app

def of_starlette():
    return Starlette(routes=[Mount("/hooks", routes=create_routes(webhooks, "/envoyou"))], lifespan=lifespan(webhooks))

def wrapped():
    return webhooks_entry(create_app("/inside"), webhooks, path="/outside")

class Middleware:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)
"""


def test_applications_of_each_kind(run, pytester):  # noqa: F811
    pytester.makeini("[pytest]\nenvoyou_app = shop")
    result = run(
        """
        import asyncio
        from pathlib import Path
        import pytest
        import shop
        from fastapi.testclient import TestClient
        from httpx2 import ASGITransport, AsyncClient

        def test_handlers_run_on_the_loop_of_the_lifespan(envoyou_deliver, capsys):
            result = envoyou_deliver("user.created", email="ada@example.com")
            assert result.processed
            assert result.response.json() == {"received": True}
            assert shop.state["loop"] is shop.state["began_on"]
            assert capsys.readouterr().out == "Welcome, ada@example.com\\n"

        def test_a_typed_handler_fails_for_an_object_that_does_not_fit(envoyou_deliver):
            result = envoyou_deliver("user.created", email=None, raise_errors=False)
            assert result.error.startswith("InvalidPayloadError: data.object is not a Customer: string_type")

        def test_in_an_async_test(envoyou_adeliver, capsys):
            async def on_one_loop():
                result = await envoyou_adeliver("user.created", email="ada@example.com")
                assert result.processed
                assert shop.state["loop"] is asyncio.get_running_loop()

            asyncio.run(on_one_loop())
            shop.state.clear()

        PATHS = {
            "nested": "/api/v1/envoyou",
            "mounted": "/shop/hooks",
            "of_starlette": "/hooks/envoyou",
            "wrapped": "/outside",
        }

        class TestOthers:
            @pytest.fixture
            def envoyou_app(self, name):
                return shop.Middleware(getattr(shop, name)())

            @pytest.mark.parametrize("name", PATHS)
            def test_it(self, name, envoyou_deliver):
                result = envoyou_deliver()
                assert (result.path, result.processed) == (PATHS[name], True)
                assert not Path("never_created.db").exists()

        class TestAClient:
            @pytest.fixture
            def envoyou_app(self):
                with TestClient(shop.app) as client:
                    yield client

            def test_it(self, envoyou_deliver, envoyou_adeliver):
                assert envoyou_deliver().processed
                assert asyncio.run(envoyou_adeliver()).processed
                assert shop.state["loop"] is shop.state["began_on"]

        class TestAClientWithoutLifespan:
            @pytest.fixture
            def envoyou_app(self):
                return TestClient(shop.app)

            def test_it(self, envoyou_deliver, envoyou_adeliver):
                assert envoyou_deliver().processed
                assert asyncio.run(envoyou_adeliver()).processed
                assert "began_on" not in shop.state

        class TestAnAsyncClient:
            @pytest.fixture
            def envoyou_app(self):
                return AsyncClient(transport=ASGITransport(shop.app), base_url="http://testserver")

            def test_it(self, envoyou_deliver, envoyou_adeliver):
                assert asyncio.run(envoyou_adeliver()).processed
                with pytest.raises(Exception, match="the client is async: use `await envoyou_adeliver"):
                    envoyou_deliver()

        class TestAWrongPath:
            @pytest.fixture
            def envoyou_path(self):
                return "/no/such/path"

            def test_it(self, envoyou_deliver):
                result = envoyou_deliver()
                assert not result.accepted
                assert "404 at /no/such/path: the application has no such route" in repr(result)

        class TestAClientOfNothing:
            @pytest.fixture
            def envoyou_app(self):
                return AsyncClient()

            def test_it(self, envoyou_deliver): ...
        """,
        shop=APP,
    )
    result.assert_outcomes(passed=11, errors=1)
    result.stdout.fnmatch_lines(["the application behind the client AsyncClient is unknown: return it instead"])
