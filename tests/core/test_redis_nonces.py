"""The nonce store in a real Redis."""

import socket
import threading
from contextlib import closing, suppress

import pytest
from redis import Redis

from envoyou_core import ConfigurationError, Event, WebhookRequest, Webhooks
from envoyou_core.circuit_breaker import PAUSE, CircuitBreaker
from envoyou_core.nonces import NonceStore, open_nonces
from envoyou_core.nonces.redis import RedisNonceStore
from envoyou_core.observability import NonceStoreFailed
from envoyou_core.testing import sample_event, sign_delivery

SECRET = "whsec_test"


@pytest.fixture
def redis(redis_url):
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def store(redis, redis_prefix):
    return RedisNonceStore(redis, prefix=redis_prefix)


def deliver(webhooks: Webhooks, event: Event, nonce: str) -> int:
    delivery = sign_delivery(event, secret=SECRET, nonce=nonce)
    return webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body)).status


def test_binds_once_and_forgets_after_its_lifetime(store, redis, redis_prefix):
    assert isinstance(store, NonceStore)
    assert store.lookup("a") is None
    store.bind("a", "evt_1", 600)
    store.bind("a", "evt_2", 600)
    assert store.lookup("a") == "evt_1"
    assert 590_000 < redis.pttl(f"{redis_prefix}a") <= 600_000
    redis.delete(f"{redis_prefix}a")
    assert store.lookup("a") is None


def test_a_client_that_decodes_responses_is_supported(redis_url, redis_prefix):
    with Redis.from_url(redis_url, decode_responses=True) as client:
        store = RedisNonceStore(client, prefix=f"{redis_prefix}decoding:")
        store.bind("a", "evt_é", 600)
        assert store.lookup("a") == "evt_é"


def test_processes_share_their_nonces(redis_url, redis_prefix):
    first, second = (
        Webhooks(
            secret=SECRET,
            inbox="memory:",
            handoff="manual",
            nonces=RedisNonceStore(redis_url, prefix=f"{redis_prefix}shared:"),
        )
        for _ in range(2)
    )
    event = sample_event()
    assert deliver(first, event, "nonce-1") == 200
    assert deliver(second, sample_event(), "nonce-1") == 401
    assert deliver(second, event, "nonce-1") == 200


async def test_the_results_are_the_same_on_an_event_loop(store):
    webhooks = Webhooks(secret=SECRET, inbox="memory:", handoff="manual", nonces=store)
    statuses = []
    for event in (sample_event(), sample_event()):
        delivery = sign_delivery(event, secret=SECRET, nonce="nonce-loop")
        answer = await webhooks.areceive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
        statuses.append(answer.status)
    assert statuses == [200, 401]


def test_events_are_accepted_while_redis_is_unavailable(caplog):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        webhooks = Webhooks(
            secret=SECRET,
            inbox="memory:",
            handoff="manual",
            nonces=f"redis://:hunter2@127.0.0.1:{unused.getsockname()[1]}/0",
        )
        assert deliver(webhooks, sample_event(), "nonce-1") == 200
    assert "nonce store failed" in caplog.text
    assert "hunter2" not in caplog.text


class Silent:
    """A Redis that accepts connections and never responds."""

    def __init__(self):
        self.connections = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with suppress(OSError):
            while True:
                self.connections.append(self._listener.accept()[0])

    def close(self):
        for one in (self._listener, *self.connections):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


async def test_a_hanging_redis_delays_only_the_first_events():
    """Otherwise each call would occupy a thread of the loop's executor, and later requests would wait for one."""
    with closing(Silent()) as silent:
        webhooks = Webhooks(secret=SECRET, inbox="memory:", handoff="manual", nonces=silent.url)
        failures = []
        webhooks.subscribe(lambda notice: failures.append(notice) if isinstance(notice, NonceStoreFailed) else None)
        statuses = []
        for number in range(100):
            delivery = sign_delivery(sample_event(), secret=SECRET, nonce=f"nonce-{number}")
            answer = await webhooks.areceive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
            statuses.append(answer.status)
        assert set(statuses) == {200}
        # A hundred events with two calls each, of which one call per second is tried.
        assert 1 <= len(failures) < 50


def test_after_a_failure_one_caller_per_second_tries_again():
    now = [0.0]
    breaker = CircuitBreaker(clock=lambda: now[0])
    calls = []

    def fail():
        calls.append(now[0])
        # Other callers get no nonce check while this one tries.
        assert breaker.call(lambda: "another") is (None if len(calls) > 1 else "another")
        raise ConnectionError

    def call(function):
        try:
            return breaker.call(function)
        except ConnectionError:
            return "failed"

    assert call(lambda: "answer") == "answer"
    assert call(fail) == "failed"
    now[0] = PAUSE - 0.1
    assert call(fail) is None
    now[0] = PAUSE
    assert call(fail) == "failed"
    assert call(lambda: "answer") is None
    now[0] = 2 * PAUSE
    assert call(lambda: "answer") == "answer"
    assert call(lambda: "answer") == "answer"
    assert calls == [0.0, PAUSE]


@pytest.mark.parametrize("url", ["", "redis", "http://localhost", "redis://localhost/?socket_timeout=never"])
def test_an_unusable_url_is_refused_at_once(url):
    with pytest.raises(ConfigurationError):
        open_nonces(url)
