"""`verified_event`: only the check, with the answers of the router."""

from typing import Annotated, Any

import pytest
from fastapi import Body, Depends, FastAPI, HTTPException, Request
from fastapi.responses import PlainTextResponse
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
def test_the_body_may_be_asked_for_more_than_once(app, path):
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
def test_a_refusal_is_the_routers(app, change):
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


def test_other_methods_of_the_path_operation_are_refused_in_the_same_words(app):
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


def test_handlers_of_the_app_for_its_own_errors_leave_refusals_alone(app):
    app.add_exception_handler(HTTPException, lambda request, error: PlainTextResponse("the app's", 500))
    response = deliver(TestClient(app), path=CHECKED, **{"X-EnvoyOU-Signature": "v1,00"})
    assert (response.status_code, response.json()["error"]) == (401, "unauthorized")
