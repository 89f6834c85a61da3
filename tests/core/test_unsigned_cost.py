"""The cost of forged requests: cheap checks come first, expensive ones run in one thread with a bounded queue."""

import asyncio
import json
import threading

import pytest

from envoyou_core import ConfigurationError, SignatureMismatchError, WebhookRequest, Webhooks
from envoyou_core.reception import receiver, signature
from envoyou_core.reception.bounded_thread import BoundedThread
from envoyou_core.reception.canonical import SMALL_BODY, canonical_form
from envoyou_core.reception.verification import verify
from envoyou_core.testing import sample_event, sign_delivery

SECRET = "whsec_test"
LARGE = {"id": "user_1", "name": "x" * SMALL_BODY}
THREAD = "envoyou-canonical-form"


def request_of(object=LARGE, *, id="evt_1", headers=(), secret=SECRET, **settings):
    # Indented, so that the canonical form differs from the raw one.
    body = json.dumps(json.loads(sample_event(id=id, object=object).body), indent=1).encode()
    delivery = sign_delivery(body, secret=secret, **settings)
    return WebhookRequest.from_http("POST", delivery.headers | dict(headers), delivery.body)


def canonical(object=LARGE, **settings):
    return request_of(object, signed_content="canonical", **settings)


def forged(object=LARGE, **settings):
    return request_of(object, secret="whsec_other", **settings)


def webhooks_with(**settings):
    return Webhooks(**{"secret": SECRET, "inbox": "memory:", "handoff": "manual"} | settings)


def receive(webhooks, request):
    return webhooks.receive(request)


def areceive(webhooks, request):
    return asyncio.run(webhooks.areceive(request))


ways = pytest.mark.parametrize("answer", [receive, areceive])


@pytest.fixture
def computed_in(monkeypatch):
    """The names of the threads in which canonical forms were computed."""
    names = []

    def spy(body, **options):
        names.append(threading.current_thread().name)
        return canonical_form(body, **options)

    monkeypatch.setattr(signature, "canonical_form", spy)
    return names


class Held:
    """Blocks the computation of large canonical forms until `go` is set."""

    def __init__(self, monkeypatch, **bounds):
        self.begun, self.go = threading.Event(), threading.Event()
        self.thread = BoundedThread("held", **{"max_calls": 2, "max_size": 10**9} | bounds)
        self.genuine = canonical()
        monkeypatch.setattr(signature, "canonical_form", self._compute)
        self.webhooks = webhooks_with()
        object.__setattr__(self.webhooks._reception, "canonical_thread", self.thread)

    def _compute(self, body, **options):
        if len(body) > SMALL_BODY:
            self.begun.set()
            assert self.go.wait(20)
        return canonical_form(body, **options)


@pytest.fixture
def held(monkeypatch):
    made = Held(monkeypatch)
    yield made
    made.go.set()


# Cheap checks first


@ways
@pytest.mark.parametrize(
    "headers",
    [
        {"X-EnvoyOU-Signature": ""},
        {"X-EnvoyOU-Signature": "v1," + "0" * 63},
        {"X-EnvoyOU-Signature": "v1," + "0" * 65},
        {"X-EnvoyOU-Signature": "v1," + "A" * 64},
        {"X-EnvoyOU-Signature": "v2," + "0" * 64},
        {"X-EnvoyOU-Signature": "v1," + "0" * 64 + "\n"},
        {"X-EnvoyOU-Timestamp": "1"},
        {"X-EnvoyOU-Timestamp": "x"},
    ],
    ids=str,
)
def test_a_refusal_by_the_headers_needs_no_secret_and_no_hash(answer, headers, computed_in, monkeypatch):
    asked, hashed, request = [], [], canonical(headers=headers)
    computed_in.clear()
    monkeypatch.setattr(signature.SigningKey, "signature", lambda *_: hashed.append(1))
    webhooks = webhooks_with(secret=lambda webhook_id: asked.append(webhook_id) or SECRET)
    assert answer(webhooks, request).status == 401
    assert (asked, hashed, computed_in) == ([], [], [])


@ways
def test_a_refusal_for_an_unknown_webhook_id_needs_no_hash(answer, computed_in, monkeypatch):
    hashed, request = [], forged()
    monkeypatch.setattr(signature.SigningKey, "signature", lambda *_: hashed.append(1))
    assert answer(webhooks_with(secret=lambda _: None), request).status == 401
    assert (hashed, computed_in) == ([], [])


@ways
def test_a_raw_signature_needs_no_canonical_form(answer, computed_in):
    assert answer(webhooks_with(), request_of()).status == 200
    assert computed_in == []


# One thread for large bodies


@ways
def test_the_canonical_form_of_a_large_body_is_computed_in_its_own_thread(answer, computed_in):
    webhooks, genuine = webhooks_with(), canonical()
    computed_in.clear()
    assert answer(webhooks, genuine).status == 200
    assert answer(webhooks, forged()).status == 401
    with pytest.raises(SignatureMismatchError):
        webhooks.verify(forged())
    assert computed_in == [THREAD] * 3


@ways
def test_the_canonical_form_of_a_small_body_is_computed_at_once(answer, computed_in):
    small = {"id": "user_1"}
    genuine = canonical(small)
    computed_in.clear()
    assert answer(webhooks_with(), genuine).status == 200
    assert answer(webhooks_with(), forged(small)).status == 401
    assert computed_in == [threading.current_thread().name] * 2


def test_verify_stays_in_the_calling_thread(computed_in):
    body = sample_event(id="evt_1", object=LARGE).body + b" "
    request = sign_delivery(body, secret=SECRET, signed_content="canonical")
    computed_in.clear()
    assert verify(request.headers, request.body, secret=SECRET).id == "evt_1"
    assert computed_in == [threading.current_thread().name]


async def test_the_event_loop_answers_other_requests_meanwhile(held):
    large = asyncio.create_task(held.webhooks.areceive(held.genuine))
    assert await asyncio.to_thread(held.begun.wait, 20)
    assert (await held.webhooks.areceive(request_of(id="evt_raw"))).status == 200
    assert (await held.webhooks.areceive(canonical({"id": "user_1"}, id="evt_small"))).status == 200
    assert not large.done()
    held.go.set()
    assert (await large).status == 200


async def test_a_full_queue_is_answered_503(held):
    waiting = [asyncio.create_task(held.webhooks.areceive(forged())) for _ in range(2)]
    assert await asyncio.to_thread(held.begun.wait, 20)
    await asyncio.sleep(0)
    for response in (await held.webhooks.areceive(held.genuine), held.webhooks.receive(held.genuine)):
        assert (response.status, dict(response.headers)["Retry-After"]) == (503, "1")
    assert held.webhooks.receive(request_of(id="evt_raw")).status == 200
    assert held.webhooks.receive(forged(headers={"X-EnvoyOU-Signature": "x"})).status == 401
    held.go.set()
    assert [(await task).status for task in waiting] == [401, 401]
    assert held.webhooks.receive(held.genuine).status == 200


@ways
def test_waiting_too_long_is_answered_503(answer, held, monkeypatch):
    monkeypatch.setattr(receiver, "AUTHENTICATION_BUDGET", 0.01)
    assert answer(held.webhooks, held.genuine).status == 503


@ways
def test_a_thread_that_cannot_be_started_is_answered_503(answer, monkeypatch):
    webhooks = webhooks_with()
    object.__setattr__(webhooks._reception, "canonical_thread", BoundedThread("none", max_calls=1, max_size=1))
    start = threading.Thread.start

    def fail(thread):
        if thread.name == "none":
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        assert answer(webhooks, canonical()).status == 503
    assert answer(webhooks, canonical()).status == 200


# max_canonical_size


@ways
def test_a_body_beyond_max_canonical_size_is_accepted_in_its_raw_form_only(answer, computed_in):
    genuine = canonical()
    size = len(genuine.body)
    assert answer(webhooks_with(max_canonical_size=size), genuine).status == 200
    webhooks = webhooks_with(max_canonical_size=size - 1)
    computed_in.clear()
    assert answer(webhooks, genuine).status == 401
    assert answer(webhooks, request_of()).status == 200
    assert computed_in == []


def test_by_default_the_canonical_form_has_no_size_limit():
    request = canonical({"id": "user_1", "tags": ["x" * 50] * 10_000})
    assert webhooks_with().receive(request).status == 200


def test_verify_applies_max_canonical_size():
    delivery = sign_delivery(sample_event(id="evt_1"), secret=SECRET, signed_content="canonical")
    with pytest.raises(SignatureMismatchError):
        verify(delivery.headers, delivery.body + b" ", secret=SECRET, max_canonical_size=len(delivery.body))


@pytest.mark.parametrize("size", [0, -1, 1.5, "4096", True])
def test_an_invalid_max_canonical_size(size):
    with pytest.raises(ConfigurationError, match="max_canonical_size must be"):
        webhooks_with(max_canonical_size=size)
