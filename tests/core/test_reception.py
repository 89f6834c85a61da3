"""From a request to a response: `receive` and `areceive` do the same, and never raise."""

import asyncio
import json
import sqlite3
import threading
import time
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envoyou_core import ConfigurationError, Tenant, WebhookError, WebhookRequest, Webhooks
from envoyou_core.inbox import Added, Settlement, Status
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.nonces.memory import MemoryNonceStore
from envoyou_core.observability import Accepted, NonceStoreFailed, Rejected
from envoyou_core.reception import receiver
from envoyou_core.reception.signature import SigningKey
from envoyou_core.testing import sample_event, sign_delivery

SECRET = "whsec_test"
RECEIVED = {"received": True}
DUPLICATE = {"received": True, "duplicate": True}


def receive(webhooks, request):
    return webhooks.receive(request)


def areceive(webhooks, request):
    return asyncio.run(webhooks.areceive(request))


@pytest.fixture(params=[receive, areceive], ids=["receive", "areceive"])
def answer(request):
    """Sends an event or a request, and returns the response's status and decoded body."""

    def send(webhooks, what=None, **settings):
        if not isinstance(what, WebhookRequest):
            what = request_of(what, **settings)
        response = request.param(webhooks, what)
        return response.status, json.loads(response.body)

    return send


def request_of(event=None, *, secret=SECRET, method="POST", drop=(), **settings):
    delivery = sign_delivery(sample_event(id="evt_1") if event is None else event, secret=secret, **settings)
    headers = {name: value for name, value in delivery.headers.items() if name not in drop}
    return WebhookRequest.from_http(method, headers, delivery.body)


class Listening(Webhooks):
    """Webhooks without a worker that record their notices."""

    def __init__(self, **settings):
        super().__init__(**{"secret": SECRET, "inbox": "memory:", "handoff": "manual"} | settings)
        self.notices = []
        self.subscribe(self.notices.append)


@pytest.fixture
def webhooks():
    return Listening()


# Accepting


def test_a_new_event_is_stored_and_acknowledged(webhooks, answer):
    assert answer(webhooks) == (200, RECEIVED)
    assert webhooks.inbox.get("evt_1").status is Status.RECEIVED
    assert webhooks.notices == [Accepted("evt_1", "user.created", Added.NEW, "")]


def test_a_redelivery_is_acknowledged_as_a_duplicate(webhooks, answer):
    request = request_of()
    assert answer(webhooks, request) == (200, RECEIVED)
    assert answer(webhooks, request) == (200, DUPLICATE)
    assert [notice.added for notice in webhooks.notices] == [Added.NEW, Added.DUPLICATE]
    assert webhooks.inbox.stats().total == 1


def test_a_redelivery_of_a_dead_event_is_a_duplicate_that_gets_new_attempts(webhooks, answer):
    answer(webhooks)
    [claim] = webhooks.inbox.claim(1, 60)
    webhooks.inbox.settle(claim, Settlement(Status.DEAD, 3))
    assert answer(webhooks) == (200, DUPLICATE)
    assert webhooks.notices[-1].added is Added.REARMED
    assert webhooks.inbox.get("evt_1").status is Status.RECEIVED


def test_an_event_without_a_handler_is_accepted(webhooks, answer):
    assert answer(webhooks, sample_event("invoice.paid")) == (200, RECEIVED)


def test_the_unsigned_webhook_id_is_stored_if_the_body_has_none(webhooks, answer):
    answer(webhooks, sample_event(id="evt_a", webhook_id="wh_body"))
    answer(webhooks, sample_event(id="evt_b", webhook_id=None), webhook_id="wh_header")
    assert webhooks.inbox.get("evt_a").webhook_id == "wh_body"
    assert webhooks.inbox.get("evt_b").webhook_id == "wh_header"


def test_an_unsigned_webhook_id_that_cannot_be_stored_is_left_out(webhooks, answer):
    delivery = sign_delivery(sample_event(id="evt_1", webhook_id=None), secret=SECRET)
    headers = [*delivery.headers.items(), ("x-envoyou-webhook-id", b"\xff\x00")]
    assert answer(webhooks, WebhookRequest.from_http("POST", headers, delivery.body)) == (200, RECEIVED)
    assert webhooks.inbox.get("evt_1").webhook_id is None


def test_the_response_waits_for_the_commit(answer):
    class Slow(MemoryInbox):
        def add(self, entry):
            future = Future()
            threading.Timer(0.05, lambda: (committed.append(True), future.set_result(Added.NEW))).start()
            return future

    committed = []
    assert answer(Listening(inbox=Slow())) == (200, RECEIVED)
    assert committed == [True]


# Shape


@pytest.mark.parametrize(
    ("settings", "status", "code"),
    [
        ({"method": "GET"}, 405, "method_not_allowed"),
        ({"drop": ("Content-Type",)}, 415, "unsupported_media_type"),
        ({"drop": ("X-EnvoyOU-Signature",)}, 401, "unauthorized"),
        ({"drop": ("X-EnvoyOU-Timestamp",)}, 401, "unauthorized"),
        ({"secret": "whsec_other"}, 401, "unauthorized"),
        ({"timestamp": 1_640_995_200}, 401, "unauthorized"),
        ({"drop": ("X-EnvoyOU-Webhook-ID",)}, 400, "missing_header"),
        ({"event_type": "user.deleted"}, 400, "header_mismatch"),
        ({"event": b"not json"}, 400, "invalid_payload"),
        ({"event": b"\xff"}, 400, "invalid_payload"),
        ({"event": b"x" * 1_048_577}, 413, "payload_too_large"),
    ],
    ids=str,
)
def test_refused_requests(webhooks, answer, settings, status, code):
    actual, body = answer(webhooks, request_of(**settings))
    assert (actual, body["error"]) == (status, code)
    assert webhooks.inbox.stats().total == 0
    [notice] = webhooks.notices
    assert isinstance(notice, Rejected)
    assert notice.status == status


def test_the_reason_of_a_401_is_logged_and_not_sent(webhooks, answer):
    bodies = [
        answer(webhooks, request_of(secret="whsec_other"))[1],
        answer(webhooks, request_of(timestamp=1))[1],
        answer(webhooks, request_of(drop=("X-EnvoyOU-Signature",)))[1],
    ]
    assert bodies == [bodies[0]] * 3
    assert [notice.reason for notice in webhooks.notices] == [
        "signature_mismatch",
        "timestamp_out_of_tolerance",
        "missing_signature",
    ]


def test_the_injected_clock_decides(answer):
    webhooks = Listening(clock=lambda: 1_640_995_500.0)
    assert answer(webhooks, request_of(timestamp=1_640_995_200)) == (200, RECEIVED)
    assert answer(webhooks, request_of(timestamp=1_640_995_199))[0] == 401


def test_a_custom_maximum_body_size(answer):
    body = sample_event(id="evt_1").body
    assert answer(Listening(max_body_size=len(body)), body) == (200, RECEIVED)
    assert answer(Listening(max_body_size=len(body) - 1), body)[0] == 413


def test_for_adapters_the_shape_can_be_checked_before_the_body_is_read(webhooks):
    assert webhooks.max_body_size == 1_048_576
    webhooks.check_shape("POST", b"application/json", 1_048_576)
    for shape in (
        ("GET", b"application/json", 0),
        ("POST", b"text/plain", 0),
        ("POST", b"application/json", 1_048_577),
    ):
        with pytest.raises(WebhookError) as caught:
            webhooks.check_shape(*shape)
        assert webhooks.refuse(caught.value).status == caught.value.status
    assert [notice.status for notice in webhooks.notices] == [405, 415, 413]


# Tenants


def key_tenant(secret):
    return f"fingerprint:{SigningKey(secret).fingerprint()}"


def tenants(webhook_id):
    return {
        "wh_1": Tenant("acme", "whsec_a"),
        "wh_2": Tenant("acme", ["whsec_new", "whsec_a"]),
        "wh_3": "whsec_b",
        "wh_4": "whsec_b",
    }.get(webhook_id)


def test_event_ids_are_unique_per_tenant(answer):
    webhooks = Listening(secret=tenants)
    event = sample_event(id="evt_1", webhook_id=None)
    assert answer(webhooks, event, secret="whsec_a", webhook_id="wh_1") == (200, RECEIVED)
    assert answer(webhooks, event, secret="whsec_a", webhook_id="wh_2") == (200, DUPLICATE)
    assert answer(webhooks, event, secret="whsec_b", webhook_id="wh_3") == (200, RECEIVED)
    assert answer(webhooks, event, secret="whsec_b", webhook_id="wh_4") == (200, DUPLICATE)
    assert {record.tenant for record in webhooks.inbox.list()} == {"acme", key_tenant("whsec_b")}


def test_one_tenants_secret_is_not_accepted_for_another_tenant(answer):
    webhooks = Listening(secret=tenants)
    event = sample_event(webhook_id=None)
    assert answer(webhooks, event, secret="whsec_b", webhook_id="wh_1")[0] == 401
    assert answer(webhooks, event, secret="whsec_b", webhook_id="wh_unknown")[0] == 401
    assert answer(webhooks, request_of(event, secret="whsec_b", drop=("X-EnvoyOU-Webhook-ID",)))[0] == 401
    assert [notice.reason for notice in webhooks.notices] == [
        "signature_mismatch",
        "unknown_endpoint",
        "unknown_endpoint",
    ]


@pytest.mark.parametrize("result", [KeyError("whsec_private"), "", Tenant("acme", ""), Tenant("acme", [])])
def test_a_failing_secret_callable_is_answered_503(answer, result):
    def find(webhook_id):
        if isinstance(result, Exception):
            raise result
        return result

    webhooks = Listening(secret=find)
    status, body = answer(webhooks, secret="x")
    assert (status, body["error"]) == ((401, "unauthorized") if result == "" else (503, "unavailable"))
    assert "private" not in json.dumps(body)
    assert webhooks.inbox.stats().total == 0


# Nonces


def test_a_nonce_bound_to_another_event_is_refused(webhooks, answer):
    assert answer(webhooks, sample_event(id="evt_1"), nonce="n") == (200, RECEIVED)
    assert answer(webhooks, sample_event(id="evt_2"), nonce="n")[0] == 401
    assert webhooks.notices[-1].reason == "nonce_reused"
    assert webhooks.inbox.get("evt_2") is None


def test_a_nonce_with_the_same_event_again_is_a_duplicate(webhooks, answer):
    assert answer(webhooks, nonce="n") == (200, RECEIVED)
    assert answer(webhooks, nonce="n") == (200, DUPLICATE)


def test_without_a_nonce_the_store_is_not_used(answer):
    assert answer(Listening(nonces=BrokenStore()), nonce="") == (200, RECEIVED)


@pytest.mark.parametrize("blocking", [False, True])
def test_a_nonce_is_bound_only_after_the_event_is_stored(answer, blocking):
    class Failing(MemoryInbox):
        def add(self, entry):
            if broken:
                failed = Future()
                failed.set_exception(OSError("disk full"))
                return failed
            return super().add(entry)

    nonces = MemoryNonceStore()
    nonces.blocking = blocking
    webhooks = Listening(inbox=Failing(), nonces=nonces)
    broken = [True]
    assert answer(webhooks, sample_event(id="evt_1"), nonce="n")[0] == 503
    broken.clear()
    assert answer(webhooks, sample_event(id="evt_2"), nonce="n") == (200, RECEIVED)
    assert answer(webhooks, sample_event(id="evt_1"), nonce="n")[0] == 401


class BrokenStore:
    def __init__(self, *, blocking=False, fails=("lookup", "bind")):
        self.blocking = blocking
        self.fails = fails

    def lookup(self, key):
        if "lookup" in self.fails:
            raise OSError("the nonce store is down")

    def bind(self, key, event_id, lifetime):
        if "bind" in self.fails:
            raise OSError("the nonce store is down")


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize("fails", [("lookup",), ("bind",), ("lookup", "bind")])
def test_events_are_accepted_although_the_nonce_store_fails(answer, blocking, fails):
    webhooks = Listening(nonces=BrokenStore(blocking=blocking, fails=fails))
    assert answer(webhooks, nonce="n") == (200, RECEIVED)
    assert answer(webhooks, nonce="n") == (200, DUPLICATE)
    failures = [notice for notice in webhooks.notices if isinstance(notice, NonceStoreFailed)]
    assert failures == [NonceStoreFailed("OSError: the nonce store is down")] * (2 * len(fails))


# Events that cannot be stored


def test_past_the_answer_budget_the_response_is_503(answer, monkeypatch):
    class Stuck(MemoryInbox):
        def add(self, entry):
            futures.append(Future())
            return futures[-1]

    futures = []
    monkeypatch.setattr(receiver, "ANSWER_BUDGET", 0.05)
    webhooks = Listening(inbox=Stuck())
    status, body = answer(webhooks)
    assert (status, body["error"]) == (503, "unavailable")
    assert futures[0].cancelled()
    assert webhooks.notices[0].reason == "unavailable"


def test_the_budget_is_the_designs():
    assert receiver.ANSWER_BUDGET == 3.0


def test_while_sqlite_is_locked_the_answer_is_503_within_the_budget_and_nothing_is_lost(
    answer, sqlite_url, monkeypatch
):
    webhooks = Listening(inbox=sqlite_url)
    webhooks.inbox.open()
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with monkeypatch.context() as hurried:
        hurried.setattr(receiver, "ANSWER_BUDGET", 0.2)
        assert answer(webhooks, nonce="n")[0] == 503
    other.close()
    again = answer(webhooks, nonce="n")
    assert again[0] == 200
    assert webhooks.inbox.get("evt_1").status is Status.RECEIVED
    webhooks.inbox.close()


def test_a_failing_inbox_is_answered_503_without_the_reason(answer):
    class Failing(MemoryInbox):
        def add(self, entry):
            raise OSError("password=private refused by db-7")

    webhooks = Listening(inbox=Failing())
    status, body = answer(webhooks)
    assert (status, body["error"]) == (503, "unavailable")
    assert "private" not in json.dumps(body)
    assert "db-7" not in json.dumps(body)
    assert "OSError" in webhooks.notices[0].detail


# Failures that do not affect the response


def test_a_failing_listener_has_no_effect_on_others(webhooks, answer, caplog):
    heard = []

    def fail(notice):
        raise ValueError("listener")

    webhooks.subscribe(fail)
    webhooks.subscribe(heard.append)
    assert answer(webhooks) == (200, RECEIVED)
    assert answer(webhooks, request_of(method="GET"))[0] == 405
    assert len(heard) == 2
    assert "a listener failed for Accepted" in caplog.text


def test_a_worker_that_cannot_start_does_not_change_the_response(answer, monkeypatch):
    webhooks = Listening(handoff="auto")
    webhooks.on("*")(lambda event: None)

    def fail(*arguments):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("envoyou_core.worker.in_process.InProcessHandoff._start", fail)
    assert answer(webhooks) == (200, RECEIVED)
    assert webhooks.notices[-1].detail == "RuntimeError: can't start new thread"


FUZZED = Listening()


@given(
    method=st.sampled_from(["POST", "post", "GET", ""]) | st.text(),
    headers=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "Content-Type",
                    "X-EnvoyOU-Signature",
                    "X-EnvoyOU-Timestamp",
                    "X-EnvoyOU-Webhook-ID",
                    "X-EnvoyOU-Nonce",
                ]
            ),
            st.text() | st.binary() | st.sampled_from(["application/json", str(int(time.time()))]),
        )
    ),
    body=st.binary(),
    signed=st.booleans(),
)
def test_every_input_has_a_response(method, headers, body, signed):
    if signed:
        headers = [*sign_delivery(body, secret=SECRET, nonce="").headers.items(), *headers]
    response = FUZZED.receive(WebhookRequest.from_http(method, headers, body))
    assert response.status in {400, 401, 405, 415}
    assert json.loads(response.body).keys() == {"error", "message"}


# verify


def averify(webhooks, request):
    return asyncio.run(webhooks.averify(request))


@pytest.mark.parametrize(
    "verify", [lambda webhooks, request: webhooks.verify(request), averify], ids=["verify", "averify"]
)
def test_verify_stores_nothing(webhooks, verify):
    assert verify(webhooks, request_of()).id == "evt_1"
    assert webhooks.inbox.stats().total == 0
    assert webhooks.notices == []
    for settings, status in (({"secret": "other"}, 401), ({"method": "PUT"}, 405), ({"event": b"{}"}, 400)):
        with pytest.raises(WebhookError) as caught:
            verify(webhooks, request_of(**settings))
        assert caught.value.status == status


def test_verify_distinguishes_a_failing_secret_callable_from_a_forgery():
    webhooks = Listening(secret=lambda webhook_id: 1 / 0)
    with pytest.raises(WebhookError) as caught:
        webhooks.verify(request_of())
    assert caught.value.status == 503


# Settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"secret": ""},
        {"secret": None},
        {"secret": []},
        {"handoff": "somehow"},
        {"max_body_size": 0},
        {"concurrency": 0},
        {"lease": 0.5},
        {"lease": float("inf")},
        {"lease": float("nan")},
        {"tolerance": -1},
        {"signed_content": ("pretty",)},
        {"required_headers": ("X-Other",)},
        {"inbox": 3},
        {"inbox": "nowhere://"},
        {"inbox": MemoryInbox(name="other")},
    ],
    ids=lambda wrong: " ".join(wrong),
)
def test_invalid_settings_are_refused_by_the_constructor(wrong):
    with pytest.raises(ConfigurationError):
        Listening(**wrong)


def test_an_inbox_may_be_an_object_or_a_url(tmp_path):
    inbox = MemoryInbox(name="billing")
    assert Listening(inbox=inbox, name="billing").inbox is inbox
    webhooks = Listening(inbox=f"sqlite:///{tmp_path}/a.db", name="billing")
    assert webhooks.inbox.name == webhooks.name == "billing"
    assert not (tmp_path / "a.db").exists()
