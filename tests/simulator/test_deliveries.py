"""What the platform delivers, over real sockets."""

import json
import socket
import time

import pytest

from envoyou_core import ConfigurationError, EnvoyouError, InvalidPayloadError, SignatureMismatchError, verify
from envoyou_core.simulator import Platform, Trouble
from tests.simulator.conftest import call
from tests.simulator.receiver import SECRET, receiver

RETRY_AT_ONCE = {"initial_delay": 0}


@pytest.fixture
def endpoint():
    with receiver() as endpoint:
        yield endpoint


def test_a_delivery_is_as_the_guide_says(endpoint):
    with Platform() as platform:
        webhook = platform.register(endpoint.url, secret=SECRET, headers={"X-Custom-Header": "your-custom-value"})
        [event_id] = platform.send("user.updated", object={"id": "user_1", "name": "Zoë"})
        platform.wait_until_idle()
        [attempt] = platform.attempts(event_id)
    [received] = endpoint.received
    assert received.path == "/hook?a=b"
    headers = {name.lower(): value for name, value in received.headers.items()}
    assert headers["host"] == f"127.0.0.1:{endpoint.port}"
    assert headers["content-type"] == "application/json"
    assert headers["x-envoyou-webhook-id"] == webhook.id
    assert headers["x-envoyou-event-type"] == "user.updated"
    assert len(headers["x-envoyou-nonce"]) == 36
    assert headers["x-custom-header"] == "your-custom-value"
    event = verify(received.headers, received.body, secret=SECRET)
    assert (event.id, event.type, event.webhook_id) == (event_id, "user.updated", webhook.id)
    assert event.data.object == {"id": "user_1", "name": "Zoë"}
    assert (attempt.status, attempt.answer, attempt.error, attempt.delivered) == (200, "{}", "", True)
    with pytest.raises(SignatureMismatchError):
        verify(received.headers, received.body, secret="whsec_other")


def test_only_active_webhooks_that_receive_the_type_get_an_event(endpoint):
    with Platform() as platform:
        both = [platform.register(endpoint.url, types, secret=SECRET) for types in (["auth.login"], ["user.created"])]
        platform.register(endpoint.url, active=False)
        platform.send("user.created")
        platform.send("auth.login")
        platform.send("user.deleted")
        platform.wait_until_idle()
    assert sorted((event.type, event.webhook_id) for event in endpoint.events) == [
        ("auth.login", both[0].id),
        ("user.created", both[1].id),
    ]


def test_an_event_can_be_sent_again(endpoint):
    with Platform() as platform:
        platform.register(endpoint.url, secret=SECRET, retry_policy={"max_attempts": 2, **RETRY_AT_ONCE})
        endpoint.statuses += [503, 503]
        [event_id] = platform.send()
        platform.wait_until_idle()
        assert [attempt.status for attempt in platform.attempts()] == [503, 503]
        platform.resend(event_id)
        platform.wait_until_idle()
        attempts = platform.attempts(event_id)
        assert [(attempt.number, attempt.status) for attempt in attempts] == [(1, 503), (2, 503), (1, 200)]
        assert platform.attempts(after=attempts[1].sequence) == attempts[2:]
        assert {event.id for event in endpoint.events} == {event_id}
        with pytest.raises(LookupError):
            platform.resend("evt_unknown")


def test_bodies_and_signatures_of_both_forms_are_accepted(endpoint):
    trouble = Trouble(canonical_signatures=0.5, pretty_bodies=0.5)
    with Platform(trouble=trouble) as platform:
        platform.register(endpoint.url, secret=SECRET)
        ids = platform.send(count=40)
        platform.wait_until_idle()
    assert sorted(event.id for event in endpoint.events) == sorted(ids)
    pretty, strict = set(), set()
    for each in endpoint.received:
        pretty.add(b"\n" in each.body)
        try:
            verify(each.headers, each.body, secret=SECRET, signed_content=("raw",))
            strict.add(True)
        except SignatureMismatchError:
            strict.add(False)
    assert pretty == strict == {True, False}


def test_redirects_and_cookies_are_ignored(endpoint):
    with receiver() as other, Platform() as platform:
        platform.register(endpoint.url, secret=SECRET, retry_policy={"max_attempts": 2, **RETRY_AT_ONCE})
        endpoint.statuses += [307]
        endpoint.headers = {"Location": other.url, "Set-Cookie": "a=b"}
        platform.send()
        platform.wait_until_idle()
        assert [attempt.status for attempt in platform.attempts()] == [307, 200]
        assert other.received == []
        assert "cookie" not in {name.lower() for name in endpoint.received[1].headers}


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("192.0.2.1", None),
        ("0.0.0.0", None),
        ("[::ffff:192.0.2.1]", None),
        ("receiver.example", ["192.0.2.1"]),
        ("receiver.example", ["127.0.0.1", "192.0.2.1"]),
    ],
)
def test_other_than_loopback_addresses_are_refused(host, addresses, monkeypatch):
    if addresses:
        resolve_to(addresses, monkeypatch)
    with Platform() as platform:
        platform.register(f"http://{host}/", retry_policy={"max_attempts": 1})
        platform.send()
        platform.wait_until_idle()
        [attempt] = platform.attempts()
    assert attempt.status is None
    assert "only loopback addresses are allowed" in attempt.error


def resolve_to(addresses, monkeypatch):
    """Let the first look-up of a name return `addresses`, and every other one nothing."""
    answers = iter([addresses])

    def look_up(_, port, *__, **___):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in next(answers, [])]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def test_a_name_is_resolved_once_and_its_addresses_are_tried_in_turn(endpoint, monkeypatch):
    resolve_to(["127.0.0.2", "127.0.0.1"], monkeypatch)
    with Platform() as platform:
        platform.register(f"http://receiver.example:{endpoint.port}/", secret=SECRET)
        platform.send()
        platform.wait_until_idle()
        assert [attempt.status for attempt in platform.attempts()] == [200]
    assert endpoint.received[0].headers["Host"] == f"receiver.example:{endpoint.port}"


def no_address(*_, **__):
    raise OSError


def test_what_is_not_an_answer_is_recorded(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent, Platform(timeout=0.1) as platform:
        port = silent.getsockname()[1]
        platform.register(f"http://127.0.0.1:{port}/", retry_policy={"max_attempts": 1})
        platform.send()
        platform.wait_until_idle()
        silent.close()
        platform.send()
        platform.wait_until_idle()
        monkeypatch.setattr(socket, "getaddrinfo", no_address)
        platform.register("http://receiver.example/", ["auth.login"], retry_policy={"max_attempts": 1})
        platform.send("auth.login")
        platform.wait_until_idle()
        errors = [attempt.error for attempt in platform.attempts()]
    assert errors[0] == "no answer within 0.1 s"
    assert errors[1].startswith("ConnectError: ")
    assert set(errors[2:]) == {
        "ConnectError: All connection attempts failed",
        "the host receiver.example has no address",
    }


def test_what_is_unfinished_is_delivered_by_the_next_process(endpoint, tmp_path):
    file = tmp_path / "platform.db"
    endpoint.statuses += [500]
    with Platform(database=file) as platform:
        platform.register(endpoint.url, secret=SECRET, retry_policy={"initial_delay": 300})
        [event_id] = platform.send()
        with pytest.raises(TimeoutError, match="1 deliveries are unfinished"):
            platform.wait_until_idle(0.1)
    assert file.stat().st_mode & 0o777 == 0o600
    with Platform(database=file) as platform:
        platform.wait_until_idle()
        assert [attempt.status for attempt in platform.attempts(event_id)] == [500, 200]


def test_what_a_killed_process_was_sending_is_sent_by_the_next(endpoint, tmp_path):
    killed = Platform(database=tmp_path / "platform.db")
    killed.register(endpoint.url, secret=SECRET)
    ids = killed.send(count=2)
    assert len(killed._outbox.claim(time.time(), 1)) == 1
    killed.stop()
    with Platform(database=tmp_path / "platform.db") as platform:
        platform.wait_until_idle()
    assert sorted(event.id for event in endpoint.events) == sorted(ids)


def test_other_processes_send_events_over_http(endpoint):
    with Platform() as platform:
        platform.register(endpoint.url, secret=SECRET)
        sent = call(
            platform,
            "POST",
            "/_simulator/events",
            {"type": "auth.login", "object": {"id": 1}, "count": 2, "created": 5},
        )
        assert sent.status == 202
        ids = sent.json["events"]
        assert len(ids) == 2
        platform.wait_until_idle()
        assert call(platform, "GET", "/_simulator/state").json == {"unfinished": 0}
        assert call(platform, "POST", f"/_simulator/events/{ids[0]}/resend").status == 202
        platform.wait_until_idle()
        items = call(platform, "GET", f"/_simulator/attempts?event_id={ids[0]}").json["items"]
        assert [(item["event_id"], item["status"]) for item in items] == [(ids[0], 200)] * 2
        assert call(platform, "GET", f"/_simulator/attempts?after={items[0]['sequence']}&limit=1").json["items"]
        assert {(event.data.object["id"], event.created) for event in endpoint.events} == {(1, 5)}
        assert "x-ratelimit-limit" not in sent.headers
        assert call(platform, "GET", "/_simulator/state", headers={}).status == 401


@pytest.mark.parametrize(
    ("method", "path", "document", "status"),
    [
        ("POST", "events", {"type": "user.unknown"}, 400),
        ("POST", "events", {"type": ["user.created"]}, 400),
        ("POST", "events", {"count": 0}, 400),
        ("POST", "events", {"count": "1"}, 400),
        ("POST", "events", {"count": 100_001}, 400),
        ("POST", "events", {"created": -1}, 400),
        ("POST", "events", {"created": "now"}, 400),
        ("POST", "events", {"object": []}, 400),
        ("POST", "events", {"kind": "user.created"}, 400),
        ("POST", "events/evt_unknown/resend", {}, 404),
        ("GET", "attempts?after=-1", None, 400),
        ("GET", "events", None, 404),
    ],
)
def test_wrong_requests_are_refused(api, method, path, document, status):
    assert api(method, f"/_simulator/{path}", document).status == status


@pytest.mark.parametrize("wrong", [{"event_type": "user.unknown"}, {"count": 0}, {"count": 1.5}])
def test_wrong_arguments_are_refused(platform, wrong):
    with pytest.raises(ConfigurationError):
        platform.send(**wrong)
    with pytest.raises(InvalidPayloadError):
        platform.send(object={"number": float("nan")})
    with pytest.raises(ConfigurationError, match="url must be an absolute http or https URL"):
        platform.register("localhost")


def test_a_platform_that_has_stopped_says_so():
    platform = Platform()
    with platform:
        platform.send()
    with pytest.raises(EnvoyouError, match="the platform has stopped"):
        platform.attempts()
    with pytest.raises(EnvoyouError, match="the platform has stopped"):
        platform.send()
    with pytest.raises(ConfigurationError, match="can be started once"):
        platform.start()


def test_a_platform_that_cannot_record_attempts_fails(endpoint):
    platform = Platform()
    platform.start()
    platform.register(endpoint.url, secret=SECRET)
    platform._database.rows("ALTER TABLE attempts RENAME TO lost")
    platform.send(count=3)
    for method in (platform.wait_until_idle, platform.stop):
        with pytest.raises(EnvoyouError, match="the platform has failed: OperationalError"):
            method()
    assert not platform.is_running


def test_secrets_are_in_no_representation(platform):
    webhook = platform.register("http://127.0.0.1:9/", secret=SECRET, headers={"X-Token": "hidden"}, active=False)
    for text in (repr(webhook), str(webhook), json.dumps(webhook.as_json()["url"]), repr(platform)):
        assert SECRET not in text
        assert "hidden" not in text
        assert platform.api_key not in text
