"""What a type checker must make of user code. It is checked by mypy, and never run."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_type

from envoyou_core import (
    DeliveryInfo,
    EnvoyouError,
    Event,
    Handlers,
    Login,
    PermanentError,
    Retention,
    RetentionReport,
    RetryLater,
    RetryPolicy,
    Tenant,
    User,
    WebhookError,
    WebhookRequest,
    WebhookResponse,
    Webhooks,
    sign,
    verify,
)
from envoyou_core.inbox import Inbox, InboxRecord, InboxStats, RejectedDelivery, Status
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.nonces import NonceStore
from envoyou_core.nonces.memory import MemoryNonceStore
from envoyou_core.observability import Accepted, Notice, Settled
from envoyou_core.testing import Delivery, sample_event, sign_delivery

# Making one


def secrets_of(webhook_id: str) -> list[str]:
    return ["newest", "oldest"]


async def secret_later(webhook_id: str) -> str | None:
    return None


def row_of(webhook_id: str) -> tuple[str, str]:
    return webhook_id, "whsec_1"


def tenant_of(webhook_id: str) -> Tenant | None:
    return Tenant("acme", "whsec_1") if webhook_id else None


webhooks = Webhooks(secret="whsec_1")
Webhooks(secret=["newest", b"oldest"], handoff="manual", signed_content=("raw",), retry=RetryPolicy(max_attempts=5))
Webhooks(secret="whsec_1", handoff="celery")
Webhooks(secret=secrets_of, inbox=MemoryInbox(), nonces=MemoryNonceStore(), tolerance=60, clock=lambda: 5.0)
Webhooks(secret=tenant_of, required_headers=["X-EnvoyOU-Nonce"], max_body_size=1_000, concurrency=2, lease=30)
Webhooks(secret={"wh_1": "whsec_1", "wh_2": ["newest", b"oldest"], "wh_3": Tenant("acme", "whsec_3")})
Webhooks(secret=secret_later)
Webhooks(secret=row_of)  # type: ignore[arg-type]
Webhooks(secret={"whsec_1", "whsec_2"})  # type: ignore[arg-type]
Webhooks(secret="whsec_1", inbox="sqlite:///envoyou.db", spool="sqlite:///spool.db")
Webhooks(secret="whsec_1", spool=MemoryInbox())  # type: ignore[arg-type]
Webhooks(secret=3)  # type: ignore[arg-type]
Webhooks(secret="whsec_1", handoff="somehow")  # type: ignore[arg-type]
Webhooks(secret="whsec_1", signed_content=("pretty",))  # type: ignore[arg-type]
Webhooks("whsec_1")  # type: ignore[call-arg]
Webhooks()  # type: ignore[call-arg]
RetryPolicy(5)  # type: ignore[call-arg]
Webhooks(secret="whsec_1", retention=Retention(payload_days=7, scrub_processed=True))
Webhooks(secret="whsec_1", retention=None)
Webhooks(secret="whsec_1", retention=30)  # type: ignore[arg-type]
Retention(30)  # type: ignore[call-arg]
assert_type(Webhooks.from_env(), Webhooks)

# Handlers


@webhooks.on("user.created")
def welcome(event: Event) -> None:
    assert_type(event.id, str)
    assert_type(event.type, str)
    assert_type(event.created, int)
    assert_type(event.created_at, datetime)
    assert_type(event.webhook_id, str | None)
    assert_type(event.body, bytes)
    content: Mapping[str, Any] = event.data.object
    content["email"]
    event.id = "evt_2"  # type: ignore[misc]


@dataclass
class Account:
    id: str


@webhooks.on("user.updated", "user.verified")
def read_the_object(event: Event) -> None:
    assert_type(event.data.as_type(User).email, str | None)
    assert_type(event.data.as_type(Login).timestamp, datetime | None)
    assert_type(event.data.as_type(Account), Account)
    assert_type(event, Event[dict[str, Any]])
    assert_type(event.data.object, dict[str, Any])
    assert_type(event.typed_as(Account), Event[Account])
    assert_type(event.typed_as(Account).data.object, Account)


@webhooks.on("user.deleted", name="typed by annotation")
def forget_account(event: Event[Account]) -> None:
    assert_type(event.data.object, Account)


@webhooks.on("user.*", name="keep in step")
async def keep_in_step(event: Event, *, attempt: int) -> None: ...


@webhooks.on("auth.*")
async def watch(event: Event, attempt: int, delivery: DeliveryInfo) -> None:
    assert_type(delivery.received_at, datetime)
    assert_type(delivery.webhook_id, str | None)
    if attempt > 2:
        raise PermanentError("no such user")
    raise RetryLater(60)


@webhooks.on("auth.login", ordered=True, time_limit=2.5, concurrency=4)
async def limited(event: Event) -> None: ...


@webhooks.on("auth.logout", stale="skip")
def mirror(event: Event) -> None: ...


@webhooks.on("user.deleted", atomic=False)
def plainly(event: Event) -> None: ...


@webhooks.on("user.deleted", retry=RetryPolicy(max_attempts=5), retry_on=(OSError, TimeoutError), give_up_on=KeyError)
def patiently(event: Event) -> None: ...


webhooks.on("auth.failed", retry=5)  # type: ignore[arg-type]
webhooks.on("auth.failed", retry_on="OSError")  # type: ignore[arg-type]
webhooks.on("auth.failed", give_up_on=[KeyboardInterrupt])  # type: ignore[list-item]
webhooks.on("auth.failed", stale="drop")  # type: ignore[arg-type]
webhooks.on("auth.failed", concurrency=1.5)  # type: ignore[arg-type]


@webhooks.on(3)  # type: ignore[arg-type]
def wrong(event: Event) -> None: ...


@webhooks.around_handler
@contextmanager
def log_context(event: Event, handler: str, attempt: int) -> Iterator[None]:
    yield


@webhooks.around_handler
async def traced(event: Event, handler: str, attempt: int) -> AsyncIterator[None]:
    yield


@webhooks.around_handler  # type: ignore[type-var]
def not_a_context(event: Event, handler: str, attempt: int) -> None: ...


@webhooks.around_handler  # type: ignore[type-var]
def without_arguments() -> Iterator[None]:
    yield


webhooks.provide("account", lambda: Account("user_1"))
webhooks.provide(Account, lambda: Account("user_1"))
webhooks.provide(3, dict)  # type: ignore[arg-type]
webhooks.provide("account", Account("user_1"))  # type: ignore[arg-type]


@webhooks.on("user.deleted", name="with what is provided")
def close(event: Event, account: Account) -> None: ...


# A decorated handler keeps its own type.
assert_type(welcome(sample_event("user.created")), None)
welcome("evt_1")  # type: ignore[arg-type]


async def call_an_async_handler() -> None:
    await keep_in_step(sample_event(), attempt=1)
    keep_in_step(sample_event())  # type: ignore[call-arg, unused-coroutine]


handlers = Handlers()


@handlers.on("*")
def count(event: Event) -> int:
    return 1


webhooks.include(handlers)
webhooks.include([count])  # type: ignore[arg-type]
assert_type(count(sample_event("auth.login")), int)

# Receiving


def in_a_view(method: str, headers: Mapping[str, str], body: bytes) -> WebhookResponse:
    response = webhooks.receive(WebhookRequest.from_http(method, headers, body))
    assert_type(response.status, int)
    assert_type(response.body, bytes)
    assert_type(response.headers, tuple[tuple[str, str], ...])
    return response


async def in_an_async_view(request: WebhookRequest) -> int:
    assert_type(await webhooks.averify(request), Event)
    response = await webhooks.areceive(request)
    assert_type(await webhooks.adrain(), int)
    assert_type(webhooks.drain(raise_errors=True) + await webhooks.adrain(raise_errors=True), int)
    async with webhooks.lifespan():
        return response.status


def headers_come_in_many_forms(body: bytes, raw: Iterable[tuple[bytes, bytes]], text: dict[str, str]) -> None:
    WebhookRequest.from_http("POST", raw, body)
    WebhookRequest.from_http("POST", text, body)
    WebhookRequest.from_http("POST", text, body, path="/webhooks/envoyou", peer=None)
    WebhookRequest.from_http("POST", [("X-EnvoyOU-Nonce", "n")], body)
    WebhookRequest.from_http("POST", "X-EnvoyOU-Nonce: n", body)  # type: ignore[arg-type]
    WebhookRequest.from_http("POST", text, "{}")  # type: ignore[arg-type]


delivery = sign_delivery(sample_event("user.created"), secret="whsec_1")
assert_type(delivery, Delivery)
assert_type(verify(delivery.headers, delivery.body, secret="whsec_1"), Event)
assert_type(sign(b"{}", secret="whsec_1", timestamp=1_640_995_200), str)
verify(delivery.headers, delivery.body.decode(), secret="whsec_1")  # type: ignore[arg-type]
verify(delivery.headers, delivery.body)  # type: ignore[call-arg]

try:
    verify(delivery.headers, delivery.body, secret="whsec_1")
except WebhookError as error:
    assert_type(error.status, int)
    assert_type(error.code, str)
    an_envoyou_error: EnvoyouError = error

# The inbox


def look(inbox: Inbox) -> None:
    record = inbox.get("evt_1")
    assert_type(record, InboxRecord | None)
    print(record.status)  # type: ignore[union-attr]
    if record is not None:
        assert_type(record.status, Status)
        assert_type(record.event, Event)
        assert_type(record.next_attempt_at, datetime | None)
        assert_type(record.last_error, str | None)
    assert_type(inbox.list(status="dead", type="user.created", limit=10), list[InboxRecord])
    assert_type(inbox.stats(), InboxStats)
    assert_type(inbox.requeue("evt_1"), int)
    assert_type(inbox.requeue(status=Status.DEAD), int)
    assert_type(inbox.requeue(drop_handlers=["old_name"]), int)
    assert_type(inbox.prune(timedelta(days=30)), int)
    inbox.prune(30)  # type: ignore[arg-type]


look(webhooks.inbox)
webhooks.inbox.claim(1, 60)  # type: ignore[attr-defined]
look(MemoryInbox())
look(SqlInbox("sqlite:///envoyou.db"))

webhooks.pause(type="user.*")
webhooks.resume(handler="welcome")
webhooks.pause("user.*")  # type: ignore[call-arg]
assert_type(webhooks.paused, frozenset[str])
assert_type(webhooks.apply_retention(), RetentionReport)
assert_type(webhooks.inbox.list_rejected(limit=5), list[RejectedDelivery])
assert_type(webhooks.inbox.get_rejected(1), RejectedDelivery | None)
assert_type(webhooks.retry_rejected(1, use_signed_headers=True), Event | None)

# Stores and listeners of one's own


class OwnNonces:
    blocking = True

    def lookup(self, key: str) -> str | None:
        return None

    def bind(self, key: str, event_id: str, lifetime: float) -> None: ...


own: NonceStore = OwnNonces()
Webhooks(secret="whsec_1", nonces=OwnNonces())
Webhooks(secret="whsec_1", nonces={})  # type: ignore[arg-type]


def listen(notice: Notice) -> None:
    match notice:
        case Accepted():
            assert_type(notice.event_id, str)
        case Settled():
            assert_type(notice.status, Status)


webhooks.subscribe(listen)
webhooks.subscribe(welcome)  # type: ignore[arg-type]
registering: Callable[[Callable[[Event], None]], Callable[[Event], None]] = webhooks.on("*", name="another")
