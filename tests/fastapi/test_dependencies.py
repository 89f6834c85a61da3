"""`verified_event`: verifies only, with the same responses as the router."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import msgspec
import pytest
from fastapi import Body, Depends, FastAPI, HTTPException, Request
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, field_validator
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.base import BaseHTTPMiddleware

from envoyou_core import Event
from envoyou_core.observability import Rejected
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_fastapi import create_router, verified_event
from tests.fastapi.conftest import PATH, SECRET, TestClient, deliver

CHECKED = "/checked"


@pytest.fixture
def app(make_webhooks):
    webhooks = make_webhooks(handoff="manual", max_body_size=2000)
    app = FastAPI()
    app.include_router(create_router(webhooks), prefix=PATH)

    @app.api_route(CHECKED, methods=["POST", "GET"])
    async def checked(event: Annotated[Event, Depends(verified_event(webhooks))]) -> str:
        return event.id

    @app.post("/twice")
    def twice(
        event: Annotated[Event, Depends(verified_event(webhooks))],
        again: Annotated[Event, Depends(verified_event(webhooks))],
    ) -> bool:
        return event is again

    @app.post("/with-body")
    def with_body(event: Annotated[Event, Depends(verified_event(webhooks))], body: Annotated[Any, Body()]) -> bool:
        return body["id"] == event.id

    app.state.webhooks = webhooks
    return app


def test_a_genuine_event_reaches_the_path_operation_and_nothing_is_stored(app):
    event = sample_event()
    response = deliver(TestClient(app), event, path=CHECKED)
    assert (response.status_code, response.json()) == (200, event.id)
    assert app.state.webhooks.inbox.get(event.id) is None


@pytest.mark.parametrize("path", ["/twice", "/with-body"])
def test_the_body_can_be_read_more_than_once(app, path):
    assert deliver(TestClient(app), path=path).json() is True


def test_the_body_may_have_been_read_before(app):
    async def dispatch(request: Request, call_next):
        await request.body()
        return await call_next(request)

    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    assert deliver(TestClient(app), path=CHECKED).status_code == 200


def unsigned(delivery):
    return {**delivery.headers, "X-EnvoyOU-Signature": "v1,00"}, delivery.body


def contradicting(delivery):
    return {**delivery.headers, "X-EnvoyOU-Event-Type": "user.deleted"}, delivery.body


def not_json(delivery):
    return {**delivery.headers, "Content-Type": "text/plain"}, delivery.body


def too_large(delivery):
    return delivery.headers, delivery.body + 2000 * b" "


def too_large_in_chunks(delivery):
    return delivery.headers, iter([delivery.body, 2000 * b" "])


REFUSED = {unsigned: 401, contradicting: 400, not_json: 415, too_large: 413, too_large_in_chunks: 413}


@pytest.mark.parametrize("change", REFUSED)
def test_a_refusal_equals_the_routers(app, change):
    client = TestClient(app)
    notices = []
    app.state.webhooks.subscribe(notices.append)
    delivery = sign_delivery(sample_event(), secret=SECRET)

    def answer(path):
        headers, body = change(delivery)
        response = client.post(path, headers=headers, content=body)
        return response.status_code, response.content, sorted(response.headers.items())

    refused = answer(CHECKED)
    assert refused == answer(PATH)
    assert refused[0] == REFUSED[change]
    assert [notice.status for notice in notices if isinstance(notice, Rejected)] == 2 * [REFUSED[change]]


def test_other_methods_of_the_path_operation_are_refused_alike(app):
    client = TestClient(app)
    refused, expected = client.get(CHECKED), client.get(PATH)
    assert (refused.status_code, refused.content) == (405, expected.content)
    assert refused.headers["Allow"] == "POST"


def test_a_secret_callable_that_fails_is_unavailable(make_webhooks):
    def secrets(webhook_id):
        raise LookupError("no database")

    app = FastAPI()
    check = verified_event(make_webhooks(secret=secrets, handoff="manual"))
    app.add_api_route(CHECKED, lambda event: event.id, methods=["POST"], dependencies=[Depends(check)])
    response = deliver(TestClient(app), path=f"{CHECKED}?event=1")
    assert (response.status_code, response.json()["error"]) == (503, "unavailable")
    assert response.headers["Retry-After"] == "1"


def test_exception_handlers_of_the_app_do_not_change_refusals(app):
    app.add_exception_handler(HTTPException, lambda request, error: PlainTextResponse("the app's", 500))
    response = deliver(TestClient(app), path=CHECKED, **{"X-EnvoyOU-Signature": "v1,00"})
    assert (response.status_code, response.json()["error"]) == (401, "unauthorized")


def pass_on(app):
    async def dispatch(request: Request, call_next):
        return await call_next(request)

    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)


@pytest.mark.parametrize("arrange", [lambda app: None, pass_on], ids=["alone", "within middleware"])
@pytest.mark.parametrize("of", [401, StarletteHTTPException, Exception], ids=str)
def test_no_handler_of_the_app_replaces_a_refusal(app, of, arrange):
    app.add_exception_handler(of, lambda request, error: PlainTextResponse("the app's", 500))
    arrange(app)
    client = TestClient(app)
    refused, expected = (deliver(client, path=path, **{"X-EnvoyOU-Signature": "v1,00"}) for path in (CHECKED, PATH))
    assert (refused.status_code, refused.content, refused.headers) == (401, expected.content, expected.headers)


@pytest.mark.parametrize("arrange", [lambda app: None, pass_on], ids=["alone", "within middleware"])
@pytest.mark.parametrize("path", [CHECKED, PATH])
def test_a_sender_that_disconnects_early_is_not_an_error(app, arrange, path):
    arrange(app)
    delivery = sign_delivery(sample_event(), secret=SECRET)
    headers = [(name.lower().encode(), value.encode()) for name, value in delivery.headers.items()]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    received = iter([{"type": "http.request", "body": delivery.body, "more_body": True}])
    sent = []

    async def receive():
        return next(received, {"type": "http.disconnect"})

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    assert [message["status"] for message in sent if message["type"] == "http.response.start"] == [499]


class Model(BaseModel):
    id: str
    seats: int

    @field_validator("id")
    @classmethod
    def is_one_of_ours(cls, value: str) -> str:
        if not value.startswith("user_"):
            raise ValueError(f"{value} is not one of ours")
        return value


class Struct(msgspec.Struct):
    id: str
    seats: int


@dataclass
class Data:
    id: str
    seats: int


class Typed(TypedDict):
    id: str
    seats: int


@pytest.fixture(params=[Model, Struct, Data, Typed], ids=lambda model: model.__name__)
def typed_app(request, manual):
    app = FastAPI()
    app.include_router(create_router(manual), prefix=PATH)

    @app.post(CHECKED)
    async def checked(event: Annotated[Event[request.param], Depends(verified_event(manual, request.param))]) -> int:
        found = event.data.object
        return found["seats"] if request.param is Typed else found.seats

    app.state.webhooks = manual
    return app


def test_the_object_of_a_typed_event_has_the_type(typed_app):
    event = sample_event(object={"id": "user_1", "seats": 3, "more": None})
    response = deliver(TestClient(typed_app), event, path=CHECKED)
    assert (response.status_code, response.json()) == (200, 3)


@pytest.mark.parametrize("object", [{}, {"id": "user_1"}, {"id": "user_1", "seats": "whsec_many"}])
def test_an_object_that_does_not_match_the_model_is_an_invalid_payload(typed_app, object, caplog):
    response = deliver(TestClient(typed_app), sample_event(object=object), path=CHECKED)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_payload")
    assert response.json().keys() == {"error", "message"}
    assert response.json()["message"].startswith("data.object is not a ")
    assert "seats" in response.json()["message"] or object == {}
    # The payload is neither sent nor logged.
    assert "whsec_many" not in response.text + caplog.text


def test_the_text_of_a_models_own_validators_is_not_sent(manual, caplog):
    app = FastAPI()
    check = verified_event(manual, Model)
    app.add_api_route(CHECKED, lambda: "not reached", methods=["POST"], dependencies=[Depends(check)])
    event = sample_event(object={"id": "ada@example.com", "seats": 1})
    response = deliver(TestClient(app), event, path=CHECKED)
    assert response.json()["message"] == "data.object is not a Model: value_error - at `$.id`"
    assert "ada@example.com" not in caplog.text


def test_a_forged_event_is_refused_before_it_is_typed(typed_app):
    event = sample_event(object={})
    response = deliver(TestClient(typed_app), event, path=CHECKED, **{"X-EnvoyOU-Signature": "v1,00"})
    assert (response.status_code, response.json()["error"]) == (401, "unauthorized")


def test_one_request_can_give_a_plain_and_a_typed_event(manual):
    app = FastAPI()

    @app.post(CHECKED)
    async def checked(
        plain: Annotated[Event, Depends(verified_event(manual))],
        typed: Annotated[Event[Struct], Depends(verified_event(manual, Struct))],
    ) -> bool:
        return plain == typed and plain.data.object["id"] == typed.data.object.id

    event = sample_event(object={"id": "user_1", "seats": 3})
    assert deliver(TestClient(app), event, path=CHECKED).json() is True
