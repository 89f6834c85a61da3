"""The management API: what it answers to a client."""

import sqlite3
from contextlib import closing

import pytest

from envoyou_core import ConfigurationError
from envoyou_core.simulator import Platform, RetrySchedule
from envoyou_core.simulator.api import Api, ApiRequest, WebhooksResource
from envoyou_core.simulator.database import Database
from envoyou_core.simulator.rate_limit import RateLimit
from envoyou_core.simulator.registry import Registry
from tests.simulator.conftest import URL, call

SETTINGS = {"url": URL, "events": ["user.created", "auth.login"]}


def test_a_webhook_is_created_shown_changed_and_deleted(api):
    created = api("POST", "/v1/webhooks", {**SETTINGS, "secret": "whsec_1", "headers": {"X-Custom-Header": "yes"}})
    assert created.status == 201
    assert created.json.pop("secret") == "whsec_1"
    webhook = {name: value for name, value in created.json.items() if name != "secret"}
    assert webhook == {
        **SETTINGS,
        "id": webhook["id"],
        "active": True,
        "retry_policy": {"max_attempts": 5, "backoff_multiplier": 2, "initial_delay": 1000},
        "headers": {"X-Custom-Header": "yes"},
        "created_at": webhook["created_at"],
        "updated_at": webhook["created_at"],
    }
    path = f"/v1/webhooks/{webhook['id']}"
    assert api("GET", path).json == webhook
    changed = api("PUT", path, {"active": False, "retry_policy": {"max_attempts": 2}, "headers": None})
    assert changed.status == 200
    assert changed.json["active"] is False
    assert changed.json["retry_policy"]["max_attempts"] == 2
    assert changed.json["headers"] == {}
    assert changed.json["url"] == URL
    deleted = api("DELETE", path)
    assert (deleted.status, deleted.text) == (204, "")
    assert {api(method, path, {} if method == "PUT" else None).status for method in ("GET", "PUT", "DELETE")} == {404}


def test_without_a_secret_the_platform_makes_one(api):
    assert api("POST", "/v1/webhooks", SETTINGS).json["secret"].startswith("whsec_")


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"events": ["user.created"]}, "url"),
        ({"url": URL}, "events"),
        ({**SETTINGS, "url": "ftp://localhost/"}, "url"),
        ({**SETTINGS, "url": "http:///path"}, "url"),
        ({**SETTINGS, "url": "http://user:password@localhost/"}, "url"),
        ({**SETTINGS, "url": "http://localhost:99999/"}, "url"),
        ({**SETTINGS, "url": None}, "url"),
        ({**SETTINGS, "url": f"{URL}?{'a' * 2048}"}, "url"),
        ({**SETTINGS, "url": "http://[::1/"}, "url"),
        ({**SETTINGS, "events": []}, "events"),
        ({**SETTINGS, "events": ["user.created", "user.*"]}, "events[1]"),
        ({**SETTINGS, "events": [["user.created"]]}, "events[0]"),
        ({**SETTINGS, "secret": " whsec"}, "secret"),
        ({**SETTINGS, "secret": ""}, "secret"),
        ({**SETTINGS, "secret": "s" * 256}, "secret"),
        ({**SETTINGS, "active": 1}, "active"),
        ({**SETTINGS, "retry_policy": {"max_attempts": 0}}, "retry_policy.max_attempts"),
        ({**SETTINGS, "retry_policy": {"max_attempts": 2.5}}, "retry_policy.max_attempts"),
        ({**SETTINGS, "retry_policy": {"backoff_multiplier": True}}, "retry_policy.backoff_multiplier"),
        ({**SETTINGS, "retry_policy": {"initial_delay": -1}}, "retry_policy.initial_delay"),
        ({**SETTINGS, "retry_policy": {"delay": 1}}, "retry_policy.delay"),
        ({**SETTINGS, "retry_policy": []}, "retry_policy"),
        ({**SETTINGS, "headers": {"X-EnvoyOU-Signature": "v1"}}, "headers.X-EnvoyOU-Signature"),
        ({**SETTINGS, "headers": {"Content-Length": "1"}}, "headers.Content-Length"),
        ({**SETTINGS, "headers": {"X-Key": "a\r\nb"}}, "headers.X-Key"),
        ({**SETTINGS, "headers": {"X Key": "a"}}, "headers"),
        ({**SETTINGS, "headers": []}, "headers"),
        ({**SETTINGS, "retries": 3}, "retries"),
    ],
)
def test_invalid_settings_are_refused_by_field(api, document, field):
    response = api("POST", "/v1/webhooks", document)
    assert response.status == 400
    assert response.json["error"] == "validation_error"
    assert [each["field"] for each in response.json["fields"]] == [field]


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_not_an_object_is_refused(api, body):
    response = api("POST", "/v1/webhooks", body=body)
    assert (response.status, response.json["error"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic test_api_key"}, 401),
        ({"X-API-Key": "wr\u00f6ng"}, 401),
        ({"Authorization": "bearer test_api_key"}, 200),
        ({"X-API-Key": "test_api_key"}, 200),
    ],
)
def test_the_key_is_required(api, headers, status):
    response = api("GET", "/v1/webhooks", headers=headers)
    assert response.status == status
    assert response.headers["x-request-id"].startswith("req_")
    if status == 401:
        assert response.json["request_id"] == response.headers["x-request-id"]
        assert response.json["error"] == "unauthorized"
        assert response.json["status"] == 401


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/events", 404),
        ("GET", "/v2/webhooks", 404),
        ("GET", "/v1/webhooks/wh_1/secret", 404),
        ("DELETE", "/v1/webhooks", 405),
        ("POST", "/v1/webhooks/wh_1", 405),
    ],
)
def test_other_paths_and_methods_are_refused(api, method, path, status):
    response = api(method, path)
    assert response.status == status
    assert (response.headers.get("allow") is not None) == (status == 405)


def test_too_large_a_body_is_refused(api):
    assert api("POST", "/v1/webhooks", body=b" " * 1_048_577).status == 413


def test_lists_have_pages():
    with Platform() as platform:
        ids = [platform.register(URL).id for _ in range(5)]
        seen, path = [], "/v1/webhooks?limit=2"
        for size in (2, 2, 1):
            page = call(platform, "GET", path)
            assert len(page.json["items"]) == size
            assert page.headers["x-pagination-limit"] == "2"
            seen += [webhook["id"] for webhook in page.json["items"]]
            path = f"/v1/webhooks?limit=2&cursor={page.headers.get('x-pagination-next')}"
        assert "x-pagination-next" not in page.headers
        assert seen == ids
        assert "secret" not in page.json["items"][0]
        for cursor in ("None", "", "5", "\u00e9", "YWZ0ZXI6LTE"):
            response = call(
                platform, "GET", f"/v1/webhooks?cursor={cursor.encode().hex() if cursor == 'é' else cursor}"
            )
            assert (response.status, response.json["error"]) == (400, "invalid_cursor")
        for limit in ("0", "101", "-1", "ten", ""):
            assert call(platform, "GET", f"/v1/webhooks?limit={limit}").json["error"] == "invalid_request"


class Clock:
    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


def api_at(clock, **options):
    registry = Registry(Database(), clock)
    resources = {"v1": WebhooksResource(registry, bare_lists=options.pop("bare_lists", False))}
    settings = {"api_key": "k", "rate_limit": RateLimit(2, clock), "limited": frozenset({"v1"}), "error_form": "flat"}
    return Api(**(settings | options), resources=resources, clock=clock)


LIST = ApiRequest("GET", "/v1/webhooks", headers={"x-api-key": "k"})


def test_requests_beyond_the_limit_are_refused_until_the_minute_ends():
    clock = Clock(1_640_995_230.5)
    api = api_at(clock)
    for remaining in ("1", "0"):
        headers = api.handle(LIST).headers
        assert headers["X-RateLimit-Limit"] == "2"
        assert headers["X-RateLimit-Remaining"] == remaining
        assert headers["X-RateLimit-Reset"] == "1640995260"
        assert "Retry-After" not in headers
    refused = api.handle(LIST)
    assert refused.status == 429
    assert refused.document["error"] == "rate_limit_exceeded"
    assert refused.headers["X-RateLimit-Retry-After"] == refused.headers["Retry-After"] == "30"
    clock.now = 1_640_995_260
    assert api.handle(LIST).status == 200


def test_the_other_forms_of_errors_and_lists():
    api = api_at(Clock(1_640_995_200), error_form="nested", bare_lists=True)
    assert api.handle(LIST).document == []
    refused = api.handle(ApiRequest("POST", "/v1/webhooks", headers=LIST.headers, body=b'{"url": 1}'))
    assert refused.document == {
        "error": {
            "code": "validation_error",
            "message": refused.document["error"]["message"],
            "details": {"field": "events", "issue": "is required"},
        },
        "timestamp": "2022-01-01T00:00:00Z",
        "request_id": refused.headers["X-Request-ID"],
    }


def test_the_database_of_another_program_is_refused(tmp_path):
    file = tmp_path / "other.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE webhooks (id TEXT)")
    with pytest.raises(ConfigurationError, match="is not a database of the simulator"):
        Platform(database=file)


def test_a_file_keeps_webhooks(tmp_path):
    file = tmp_path / "platform.db"
    with Platform(database=file) as platform:
        webhook = platform.register(URL, ["user.created"], secret="whsec_1", retry_policy={"initial_delay": 5})
        assert webhook.retry_policy == RetrySchedule(initial_delay=5)
        assert "whsec_1" not in repr(webhook)
    with Platform(database=file) as platform:
        [kept] = call(platform, "GET", "/v1/webhooks").json["items"]
        assert kept == webhook.as_json()
        with pytest.raises(ConfigurationError, match="cannot listen on port"):
            Platform(port=int(platform.base_url.split(":")[2].removesuffix("/v1"))).start()


@pytest.mark.parametrize(
    "wrong",
    [
        {"api_key": ""},
        {"api_key": "k\n"},
        {"error_form": "other"},
        {"rate_limit": 0},
        {"concurrency": 0},
        {"timeout": -1},
        {"port": 65_536},
        {"port": "8787"},
        {"database": __file__},
        {"database": "/nowhere/platform.db"},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigurationError):
        Platform(**wrong)
