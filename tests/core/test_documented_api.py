"""Code that users wrote against the documentation keeps running: names, import paths, keyword arguments, calls.

`DOCUMENTED` is a record of what the README and the pages have shown. Names are added to it and never changed: if a name
is changed in the code, the name that was shown stays importable.
"""

from datetime import timedelta
from importlib import import_module

import pytest
from sqlalchemy import Column, Connection, MetaData, String, Table, create_engine, func, select

from envoyou_core import (
    EVENT_TYPES,
    Event,
    Handlers,
    PermanentError,
    Retention,
    RetryLater,
    RetryPolicy,
    SignatureMismatchError,
    User,
    WebhookRequest,
    Webhooks,
    verify,
)
from envoyou_core.observability import Accepted, HandlerFailed, Settled
from envoyou_core.testing import sample_event, sign_delivery
from tests.adapters import chosen

DOCUMENTED = {
    "envoyou_core": """
        ConfigurationError EVENT_TYPES EnvoyouError Event Handlers HeaderMismatchError InvalidPayloadError
        InvalidTimestampError MissingHeaderError MissingSignatureError NonceReusedError PermanentError Retention
        RetryLater RetryPolicy SignatureMismatchError Tenant TimestampOutOfToleranceError User WebhookError
        WebhookRequest WebhookResponse WebhookVerificationError Webhooks sign verify
    """,
    "envoyou_core.asgi": "WebhookEndpoint webhooks_entry",
    "envoyou_core.client": "ApiError AsyncEnvoyouClient DeliveryRetryPolicy EnvoyouClient NotFoundError OMITTED",
    "envoyou_core.inbox": "AsyncSqlInbox Inbox MemoryInbox RejectedDelivery SqlInbox Status",
    "envoyou_core.inbox.async_sql": "AsyncSqlInbox",
    "envoyou_core.inbox.sql": "SqlInbox",
    "envoyou_core.nonces": "NonceStore open_nonces",
    "envoyou_core.observability": "Accepted HandlerFailed HandlerOverdue Listener Notice Rejected Settled",
    "envoyou_core.simulator": "Attempt Platform Trouble",
    "envoyou_core.testing": "Delivery UnhandledEventsWarning make_event sample_event sign_delivery",
    "envoyou_core.testing.fixtures": "envoyou_platform",
    "envoyou_core.wsgi": "webhooks_entry",
    "pytest_envoyou": """
        envoyou_adeliver envoyou_app envoyou_deliver envoyou_events envoyou_path envoyou_platform envoyou_webhooks
    """,
}
DOCUMENTED_OF_ADAPTERS = {
    "django": {
        "envoyou_django": "webhooks",
        "envoyou_django.admin": "ProcessedEventAdmin RejectedDeliveryAdmin",
        "envoyou_django.async_urls": "urlpatterns",
        "envoyou_django.models": "ProcessedEvent RejectedDelivery",
        "envoyou_django.signals": "event_dead event_failed event_processed event_received",
        "envoyou_django.tasks": "work_off",
        "envoyou_django.testing": "WebhookClient WebhookTestMixin",
        "envoyou_django.testing.fixtures": "envoyou_client",
        "envoyou_django.urls": "urlpatterns",
    },
    "flask": {"envoyou_flask": "Envoyou create_blueprint"},
    "fastapi": {"envoyou_fastapi": "create_router describe_webhooks verified_event"},
    "starlette": {"envoyou_fastapi.starlette": "create_routes lifespan"},
}
PATHS = [
    (module, name)
    for documented in (DOCUMENTED, *(DOCUMENTED_OF_ADAPTERS[adapter] for adapter in chosen()))
    for module, names in documented.items()
    for name in names.split()
]

SECRET = "whsec_test"
DAY = 86_400.0


@pytest.mark.parametrize(("module", "name"), PATHS, ids=[f"{module}.{name}" for module, name in PATHS])
def test_a_documented_name_can_be_imported(module, name):
    assert hasattr(import_module(module), name)


class Clock:
    def __init__(self):
        self.now = 1_750_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def webhooks(tmp_path, clock):
    made = Webhooks(
        secret=[SECRET, "whsec_old"],
        name="documented",
        inbox=f"sqlite:///{tmp_path}/envoyou.db",
        spool=f"sqlite:///{tmp_path}/spool.db",
        nonces="memory:",
        handoff="manual",
        tolerance=300,
        signed_content=("raw", "canonical"),
        required_headers=(),
        max_body_size=65_536,
        retry=RetryPolicy(max_attempts=3, initial_delay=2, factor=2, jitter=False),
        retention=Retention(payload_days=7, id_days=30, scrub_processed=False),
        concurrency=2,
        lease=30,
        shutdown_timeout=5,
        clock=clock,
    )
    yield made
    made.inbox.close()
    made.spool.close()


@pytest.fixture
def deliver(webhooks, clock):
    def deliver(event):
        delivery = sign_delivery(event, secret=SECRET, timestamp=int(clock()))
        return webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))

    return deliver


def test_the_life_of_an_event(webhooks, deliver, clock):
    """`on`, `receive`, `drain`, and the calls of `inbox` that the pages show."""
    seen = []

    @webhooks.on("user.created", "user.updated", name="keep", ordered=True, time_limit=10, concurrency=2)
    def keep(event: Event, attempt: int) -> None:
        if attempt == 1:
            raise RetryLater(0)
        seen.append(event.data.as_type(User).email)

    @webhooks.on("user.*", stale="skip")
    async def mirror(event: Event) -> None:
        seen.append(event.object_id)

    event = sample_event("user.created", id="evt_1", object={"id": "user_1", "email": "ada@example.com"})
    response = deliver(event)
    assert (response.status, response.body) == (200, b'{"received": true}')
    assert deliver(event).body == b'{"received": true, "duplicate": true}'
    assert webhooks.drain(until_idle=True, within=60) == 2
    assert sorted(seen) == ["ada@example.com", "user_1"]

    record = webhooks.inbox.get("evt_1")
    assert (record.status, record.attempts, record.last_error, record.next_attempt_at) == ("processed", 2, None, None)
    assert [str(attempt.status) for attempt in record.history] == ["failed", "processed"]
    assert record.history[0].failures[0].handler == "keep"
    assert [it.event.id for it in webhooks.inbox.list(status="processed", type="user.created")] == ["evt_1"]
    assert [it.event.id for it in webhooks.inbox.list(object_id="user_1", limit=10)] == ["evt_1"]
    stats = webhooks.inbox.stats()
    assert (stats.by_status["processed"], stats.total, stats.overdue) == (1, 1, 0)

    clock.now += 8 * DAY
    assert webhooks.inbox.scrub(timedelta(days=7)) == 1
    assert webhooks.inbox.prune(timedelta(days=9)) == 0
    assert webhooks.inbox.prune(timedelta(days=7), ("processed", "dead")) == 1
    assert webhooks.inbox.get("evt_1") is None


def test_what_is_dead_is_repaired(webhooks, deliver):
    """`on_dead`, `requeue`, `pause` and `resume`, `erase`, and a listener."""
    died, notices, broken = [], [], [True]
    webhooks.subscribe(notices.append)
    webhooks.on_dead(lambda event, error: died.append((event.id, error)))

    @webhooks.on("user.deleted", name="forget")
    def forget(event: Event) -> None:
        if broken:
            raise PermanentError("the CRM does not know it")

    deliver(sample_event("user.deleted", id="evt_1", object={"id": "user_1"}))
    assert webhooks.drain() == 1
    assert died == [("evt_1", "PermanentError: the CRM does not know it")]
    assert [(it.event_id, str(it.status)) for it in notices if isinstance(it, Settled)] == [("evt_1", "dead")]
    assert [it.handler for it in notices if isinstance(it, HandlerFailed)] == ["forget"]
    assert [(it.event_id, it.event_type) for it in notices if isinstance(it, Accepted)] == [("evt_1", "user.deleted")]

    broken.clear()
    webhooks.pause(type="user.*")
    webhooks.pause(handler="forget")
    assert webhooks.paused == {"type:user.*", "handler:forget"}
    assert webhooks.inbox.requeue(status="dead", type="user.deleted") == 1
    assert webhooks.drain() == 0
    webhooks.resume(type="user.*")
    webhooks.resume(handler="forget")
    assert webhooks.drain() == 1
    assert webhooks.inbox.requeue("evt_1") == 0
    assert webhooks.inbox.erase("user_1") == 1


async def test_the_async_calls(webhooks, clock):
    """`include`, `areceive`, `adrain`, `averify`."""
    billing = Handlers()
    offered = []

    @billing.on("*")
    async def offer(event: Event) -> None:
        offered.append(event.type)

    webhooks.include(billing)
    event = sample_event("api.quota_exceeded", webhook_id="wh_1")
    delivery = sign_delivery(event, secret="whsec_old", timestamp=int(clock()))
    request = WebhookRequest.from_http("POST", delivery.headers, delivery.body)
    assert (await webhooks.averify(request)).id == event.id
    assert (await webhooks.areceive(request)).status == 200
    assert await webhooks.adrain(until_idle=True) == 1
    assert offered == ["api.quota_exceeded"]


def test_work_in_the_inboxs_own_transaction(webhooks, deliver, tmp_path):
    accounts = Table("accounts", MetaData(), Column("id", String, primary_key=True))
    engine = create_engine(f"sqlite:///{tmp_path}/envoyou.db")
    accounts.create(engine)

    @webhooks.on("user.created")
    def create_account(event: Event, connection: Connection) -> None:
        connection.execute(accounts.insert().values(id=event.data.object["id"]))

    deliver(sample_event("user.created"))
    assert webhooks.drain() == 1
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(accounts)) == 1
    engine.dispose()


def test_only_the_check():
    delivery = sign_delivery(sample_event("user.created"), secret=SECRET)
    assert verify(delivery.headers, delivery.body, secret=SECRET).type in EVENT_TYPES
    with pytest.raises(SignatureMismatchError):
        verify(delivery.headers, delivery.body + b" ", secret=SECRET, tolerance=300)


def test_settings_from_the_environment():
    environment = {"ENVOYOU_WEBHOOK_SECRET": SECRET, "ENVOYOU_INBOX": "memory:", "ENVOYOU_HANDOFF": "manual"}
    webhooks = Webhooks.from_env(environment, retry=RetryPolicy.patient())
    delivery = sign_delivery(sample_event("auth.login"), secret=SECRET)
    assert webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body)).status == 200
    assert webhooks.inbox.stats().by_status["received"] == 1
