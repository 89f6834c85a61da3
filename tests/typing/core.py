"""What a type checker must make of user code. It is checked by mypy, and never run."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, assert_type

from envoyou_core import Event, Handlers, RetryPolicy, User, WebhookRequest, WebhookResponse, Webhooks, sign, verify
from envoyou_core.testing import sample_event, sign_delivery


def secrets_of(webhook_id: str) -> list[str]:
    return ["newest", "oldest"]


webhooks = Webhooks(secret="whsec_1")
Webhooks(secret=["newest", "oldest"], handoff="manual", signed_content=("raw",), retry=RetryPolicy(max_attempts=5))
Webhooks(secret=3)  # type: ignore[arg-type]
Webhooks(secret="whsec_1", handoff="somehow")  # type: ignore[arg-type]
Webhooks()  # type: ignore[call-arg]


@webhooks.on("user.created")
def welcome(event: Event) -> None:
    assert_type(event.id, str)
    assert_type(event.created, int)
    assert_type(event.created_at, datetime)
    assert_type(event.webhook_id, str | None)
    assert_type(event.body, bytes)
    assert_type(event.data.as_type(User).email, str | None)
    content: Mapping[str, Any] = event.data.object
    content["email"]


@webhooks.on("user.*", name="keep in step")
async def keep_in_step(event: Event, *, attempt: int) -> None: ...


# A decorated handler keeps its own type.
assert_type(welcome(sample_event("user.created")), None)
welcome("evt_1")  # type: ignore[arg-type]

handlers = Handlers()


@handlers.on("*")
def count(event: Event) -> int:
    return 1


webhooks.include(handlers)
assert_type(count(sample_event("auth.login")), int)


def in_a_view(method: str, headers: Mapping[str, str], body: bytes) -> WebhookResponse:
    return webhooks.receive(WebhookRequest.from_http(method, headers, body))


async def in_an_async_view(request: WebhookRequest) -> int:
    response = await webhooks.areceive(request)
    assert_type(await webhooks.adrain(), int)
    return response.status


delivery = sign_delivery(sample_event("user.created"), secret="whsec_1")
assert_type(verify(delivery.headers, delivery.body, secret="whsec_1"), Event)
assert_type(sign(b"{}", secret="whsec_1", timestamp=1_640_995_200), str)
verify(delivery.headers, delivery.body.decode(), secret="whsec_1")  # type: ignore[arg-type]
