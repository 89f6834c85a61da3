"""The client against the local platform: the same contract from both sides."""

import threading
from contextlib import contextmanager
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from envoyou_core import Webhooks
from envoyou_core.client import (
    AuthenticationError,
    BadRequestError,
    DeliveryRetryPolicy,
    EnvoyouClient,
    NotFoundError,
    RateLimitError,
)
from envoyou_core.simulator import Platform
from envoyou_core.wsgi import webhooks_entry

URL = "http://127.0.0.1:9/hooks"


class Clock:
    """A time that moves on while a client waits."""

    def __init__(self):
        self.now = 1_750_000_005.0
        self.waits = Waits(self)

    def __call__(self):
        return self.now


class Waits(list):
    def __init__(self, clock):
        super().__init__()
        self._clock = clock

    def append(self, seconds):
        super().append(seconds)
        self._clock.now += seconds


@pytest.fixture(scope="module", params=[("flat", False), ("nested", True)], ids=["form A, items", "form B, arrays"])
def platform(request):
    error_form, bare_lists = request.param
    with Platform(error_form=error_form, bare_lists=bare_lists, clock=lambda: 1_750_000_000.0) as platform:
        yield platform


@pytest.fixture
def call(caller, platform):
    def call(action, **options):
        return caller.call(platform.base_url, action, **{"api_key": platform.api_key, **options})

    return call


def test_a_webhook_is_created_read_changed_and_deleted(call):
    created = call(
        lambda client: client.webhooks.create(
            url=URL,
            events=["user.created"],
            secret="whsec_1",
            active=True,
            retry_policy=DeliveryRetryPolicy(max_attempts=2, initial_delay=10),
            headers={"X-Token": "t"},
        )
    )
    assert (created.url, created.events, created.active) == (URL, ("user.created",), True)
    assert (created.secret, created.headers) == ("whsec_1", {"X-Token": "t"})
    assert created.extra.keys() == {"created_at", "updated_at"}
    got = call(lambda client: client.webhooks.get(created.id))
    assert (got.retry_policy, got.secret) == (created.retry_policy, None)
    changed = call(lambda client: client.webhooks.update(created.id, active=False, headers=None))
    assert (changed.active, changed.headers, changed.retry_policy) == (False, {}, created.retry_policy)
    assert changed.request_id.startswith("req_")
    assert changed.rate_limit.limit == 600
    deleted = call(lambda client: client.webhooks.delete(created.id))
    assert deleted.rate_limit.remaining == changed.rate_limit.remaining - 1
    with pytest.raises(NotFoundError) as raised:
        call(lambda client: client.webhooks.get(created.id))
    assert raised.value.request_id.startswith("req_")


def test_a_listing_goes_over_all_pages(call, caller, platform):
    ids = [platform.register(URL).id for _ in range(5)]

    async def list_async(client):
        return [webhook.id async for webhook in await client.webhooks.list(limit=2)]

    def list_all(client):
        return [webhook.id for webhook in client.webhooks.list(limit=2)]

    found = call(list_async if caller.kind == "async" else list_all)
    assert sorted(found) == sorted(ids)
    with pytest.raises(BadRequestError) as raised:
        call(lambda client: client.webhooks.list(cursor="no cursor"))
    assert raised.value.code == "invalid_cursor"
    for name in ids:
        call(lambda client, name=name: client.webhooks.delete(name))


def test_refusals_say_why(call):
    with pytest.raises(BadRequestError) as raised:
        call(lambda client: client.webhooks.create(url="ftp://shop.example", events=["user.created"]))
    assert (raised.value.code, raised.value.fields[0].field) == ("validation_error", "url")
    with pytest.raises(AuthenticationError):
        call(lambda client: client.webhooks.list(), api_key="wrong")


def test_a_client_waits_for_the_next_period(caller):
    clock = Clock()
    caller.waits = clock.waits
    with Platform(rate_limit=2, clock=clock) as platform:

        def list_webhooks(**options):
            return caller.call(
                platform.base_url, lambda client: client.webhooks.list(), api_key=platform.api_key, **options
            )

        for _ in range(4):
            list_webhooks()
        with pytest.raises(RateLimitError) as raised:
            list_webhooks(max_retries=0)
    assert len(clock.waits) == 1
    assert clock.now % 60 == 0
    assert (raised.value.rate_limit.retry_after, raised.value.rate_limit.remaining) == (60, 0)


def test_registered_headers_reach_the_handler():
    """The way of a custom header: the client registers it, the platform sends it, the application requires it."""
    seen = []
    webhooks = Webhooks(
        secret="whsec_1",
        inbox="memory:",
        handoff="manual",
        endpoint_headers={"X-Token": "value-of-the-token"},
        kept_headers=["X-Region"],
    )
    webhooks.on("*")(lambda event, delivery: seen.append((event.id, delivery.headers)))
    with serving(webhooks) as url, Platform() as platform, EnvoyouClient(platform.api_key, platform.base_url) as client:
        settings = {"events": ["user.created"], "secret": "whsec_1"}
        client.webhooks.create(url=f"{url}/a", headers={"X-Region": "eu", "X-Token": "value-of-the-token"}, **settings)
        [event_id] = platform.send("user.created")
        platform.wait_until_idle()
        webhooks.drain()
        assert [attempt.status for attempt in platform.attempts()] == [200]
    assert seen == [(event_id, {"X-Region": "eu"})]


@contextmanager
def serving(webhooks):
    entry = webhooks_entry(None, webhooks, path="/a")
    with make_server("127.0.0.1", 0, entry, handler_class=QuietHandler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class QuietHandler(WSGIRequestHandler):
    def log_message(self, *_):
        pass
