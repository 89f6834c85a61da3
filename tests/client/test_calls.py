"""What each call sends, what it returns, and which failures are repeated."""

import os
from dataclasses import asdict, replace
from datetime import UTC, datetime

import httpx2
import pytest

from envoyou_core import ConfigurationError
from envoyou_core.client import (
    OMITTED,
    ApiStatusError,
    AuthenticationError,
    BadRequestError,
    DeliveryRetryPolicy,
    EnvoyouClient,
    FieldIssue,
    InvalidResponseError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    RateLimit,
    RateLimitError,
    ServerError,
)
from tests.client.conftest import KEY
from tests.client.server import CUT, answer, serving

URL = "https://shop.example/hooks"
WEBHOOK = {
    "id": "wh_1",
    "url": URL,
    "events": ["user.created", "auth.login"],
    "active": False,
    "secret": "whsec_private",
    "retry_policy": {"max_attempts": 3, "backoff_multiplier": 1.5, "initial_delay": 500, "jitter": True},
    "headers": {"X-Token": "private"},
    "created_at": "2026-01-01T00:00:00Z",
}
FIGURES = {"X_RateLimit_Limit": "10", "X_RateLimit_Remaining": "9", "X_RateLimit_Reset": "1750000060"}
GOOD = answer(200, WEBHOOK, X_Request_ID="req_1", **FIGURES)


def get(client):
    return client.webhooks.get("wh_1")


def create(client):
    return client.webhooks.create(url=URL, events=["user.created"])


def delete(client):
    return client.webhooks.delete("wh_1")


def test_get_returns_the_webhook_with_what_is_unknown_and_the_figures(caller):
    with serving(GOOD) as server:
        webhook = caller.call(server, get)
    [request] = server.requests
    assert (request.method, request.path, request.body) == ("GET", "/v1/webhooks/wh_1", b"")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["accept"] == "application/json"
    assert request.headers["user-agent"].startswith("envoyou-webhooks/0.1.0.dev0 python/3.")
    assert f"httpx2/{httpx2.__version__}" in request.headers["user-agent"]
    assert (webhook.id, webhook.url, webhook.events) == ("wh_1", URL, ("user.created", "auth.login"))
    assert (webhook.active, webhook.secret, webhook.headers) == (False, "whsec_private", {"X-Token": "private"})
    assert webhook.retry_policy == DeliveryRetryPolicy(
        max_attempts=3, backoff_multiplier=1.5, initial_delay=500, extra={"jitter": True}
    )
    assert webhook.extra == {"created_at": "2026-01-01T00:00:00Z"}
    assert (webhook.request_id, webhook.rate_limit) == ("req_1", RateLimit(limit=10, remaining=9, reset=1_750_000_060))
    assert webhook.rate_limit.reset_at == datetime(2025, 6, 15, 15, 7, 40, tzinfo=UTC)
    assert "private" not in repr(webhook)
    assert asdict(webhook)["headers"] == {"X-Token": "private"}


def test_what_is_omitted_is_not_sent_and_none_is_null(caller):
    with serving(GOOD, GOOD, GOOD) as server:
        caller.call(server, create)
        caller.call(
            server,
            lambda client: client.webhooks.create(
                url=URL,
                events=("user.created",),
                secret=None,
                active=True,
                retry_policy=DeliveryRetryPolicy(extra={"jitter": True}),
                headers={"X-Token": "t"},
            ),
        )
        caller.call(server, lambda client: client.webhooks.update("wh/1", active=False, headers=None, secret=OMITTED))
    first, second, third = server.requests
    assert (first.method, first.path) == ("POST", "/v1/webhooks")
    assert first.headers["content-type"] == "application/json"
    assert first.json == {"url": URL, "events": ["user.created"]}
    assert second.json == {
        "url": URL,
        "events": ["user.created"],
        "secret": None,
        "active": True,
        "retry_policy": {"max_attempts": 5, "backoff_multiplier": 2, "initial_delay": 1000, "jitter": True},
        "headers": {"X-Token": "t"},
    }
    assert (third.method, third.path) == ("PUT", "/v1/webhooks/wh%2F1")
    assert third.json == {"active": False, "headers": None}


def test_a_policy_is_changed_without_losing_what_is_unknown(blocking):
    def halve(client):
        policy = replace(client.webhooks.get("wh_1").retry_policy, max_attempts=1)
        return client.webhooks.update("wh_1", retry_policy=policy)

    with serving(GOOD, GOOD) as server:
        blocking.call(server, halve)
    assert server.requests[1].json["retry_policy"] == {**WEBHOOK["retry_policy"], "max_attempts": 1}


@pytest.mark.parametrize(
    "action",
    [
        lambda client: client.webhooks.create(url=URL, events="user.created"),
        lambda client: client.webhooks.create(url=URL, events=[object()]),
        lambda client: client.webhooks.update("wh_1"),
        lambda client: client.webhooks.get(".."),
        lambda client: client.webhooks.delete(""),
        lambda client: client.webhooks.list(limit=0),
    ],
)
def test_an_argument_that_cannot_be_sent_is_a_value_error(action, caller):
    with serving() as server, pytest.raises(ValueError, match=r"must be|cannot be|nothing to|expected"):
        caller.call(server, action)
    assert server.requests == []


def page(*ids, cursor=None, bare=False):
    items = [{**WEBHOOK, "id": name} for name in ids]
    following = {} if cursor is None else {"X_Pagination_Next": cursor}
    return answer(200, items if bare else {"items": items}, X_Pagination_Limit="2", X_Request_ID="req_2", **following)


def test_a_page_iterates_over_all_pages(caller):
    def ids(client):
        return [webhook.id for webhook in client.webhooks.list(limit=2)]

    async def ids_async(client):
        return [webhook.id async for webhook in await client.webhooks.list(limit=2)]

    pages = page("wh_1", "wh_2", cursor="a&b"), page(cursor="c"), page("wh_3", bare=True)
    with serving(*pages) as server:
        assert caller.call(server, ids if caller.kind == "blocking" else ids_async) == ["wh_1", "wh_2", "wh_3"]
    paths = [request.path for request in server.requests]
    assert paths == [f"/v1/webhooks?limit=2{cursor}" for cursor in ("", "&cursor=a%26b", "&cursor=c")]


def test_a_page_has_its_items_and_its_figures(blocking):
    def first(client):
        page = client.webhooks.list()
        following = page.next_page()
        return page, following, following.next_page()

    with serving(page("wh_1", cursor="a"), page("wh_2")) as server:
        one, two, three = blocking.call(server, first)
    assert ([it.id for it in one.items], one.next_cursor, one.limit, one.request_id) == (["wh_1"], "a", 2, "req_2")
    assert (two.items[0].id, two.next_cursor, three) == ("wh_2", None, None)


def test_pages_that_repeat_a_cursor_end(caller):
    async def all_async(client):
        return [webhook async for webhook in await client.webhooks.list()]

    action = (lambda client: list(client.webhooks.list())) if caller.kind == "blocking" else all_async
    pages = page(cursor="a"), page(cursor="b"), page(cursor="a")
    with serving(*pages) as server, pytest.raises(InvalidResponseError, match="the same cursor twice"):
        caller.call(server, action)
    assert server.answers == []


def test_a_list_that_is_none(blocking):
    with serving(answer(200, {"data": []})) as server, pytest.raises(InvalidResponseError, match="array 'items'"):
        blocking.call(server, lambda client: client.webhooks.list())


FORM_A = {
    "error": "validation_error",
    "message": "Invalid request.",
    "status": 400,
    "request_id": "req_a",
    "fields": [{"field": "url", "issue": "must use https"}],
}
FORM_B = {
    "error": {
        "code": "validation_error",
        "message": "Invalid request.",
        "details": {"field": "url", "issue": "must use https"},
    },
    "timestamp": "2026-01-01T00:00:00Z",
    "request_id": "req_a",
}


@pytest.mark.parametrize("form", [FORM_A, FORM_B], ids=["A", "B"])
def test_both_forms_of_error_are_read(form, caller):
    with serving(answer(400, form, **FIGURES)) as server, pytest.raises(BadRequestError) as raised:
        caller.call(server, create)
    error = raised.value
    assert (error.status, error.code, error.message) == (400, "validation_error", "Invalid request.")
    assert (error.request_id, error.fields) == ("req_a", (FieldIssue("url", "must use https"),))
    assert error.rate_limit == RateLimit(limit=10, remaining=9, reset=1_750_000_060)
    assert str(error) == "400 validation_error: Invalid request.; url (must use https) (request req_a)"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequestError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (409, ApiStatusError),
        (422, BadRequestError),
    ],
)
def test_a_refusal_is_typed_by_its_status_and_not_repeated(status, kind, blocking):
    with serving(answer(status, FORM_A, X_Request_ID="req_h")) as server, pytest.raises(ApiStatusError) as raised:
        blocking.call(server, get)
    assert type(raised.value) is kind
    assert raised.value.request_id == "req_h"
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_failure_of_the_platform_is_repeated_unless_it_may_create_twice(status, caller):
    with serving(answer(status), answer(status), GOOD) as server:
        assert caller.call(server, get).id == "wh_1"
    assert [0 <= wait <= longest for wait, longest in zip(caller.waits, (0.5, 1.0), strict=True)] == [True, True]
    with serving(*[answer(status)] * 3) as server, pytest.raises(ServerError):
        caller.call(server, get)
    with serving(answer(status)) as server, pytest.raises(OutcomeUnknownError, match="may have been created or not"):
        caller.call(server, create)


@pytest.mark.parametrize("refusal", [answer(429, FORM_A, Retry_After="7"), answer(503, b"", Retry_After="7")])
def test_a_creation_that_was_not_processed_is_repeated_after_the_named_time(refusal, caller):
    with serving(refusal, refusal, GOOD) as server:
        assert caller.call(server, create).id == "wh_1"
    assert caller.waits == [7, 7]
    with serving(refusal, CUT) as server, pytest.raises(OutcomeUnknownError):
        caller.call(server, create)


LATER = "Sun, 15 Jun 2025 15:07:00 GMT"  # twenty seconds after the clock of the tests


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"X_RateLimit_Retry_After": "3"}, 3),
        ({"Retry_After": "2.5"}, 2.5),
        ({"Retry_After": "2", "X_RateLimit_Retry_After": "5"}, 5),
        ({"Retry_After": "5", "X_RateLimit_Retry_After": "2"}, 5),
        ({"Retry_After": LATER}, 20),
        ({"Retry_After": "Sun, 15 Jun 2025 15:06:00 GMT"}, 0),
        *(({"Retry_After": odd}, None) for odd in ("soon", "-1", "nan", "inf", "1e999", "")),
    ],
)
def test_the_time_to_wait(headers, seconds, blocking):
    with serving(answer(429, FORM_A, **headers)) as server, pytest.raises(RateLimitError) as raised:
        blocking.call(server, get, max_retries=0)
    assert raised.value.rate_limit.retry_after == seconds
    assert blocking.waits == []


def test_a_very_long_wait_is_left_to_the_caller(blocking):
    with serving(answer(429, FORM_A, Retry_After="61")) as server, pytest.raises(RateLimitError):
        blocking.call(server, get)
    assert blocking.waits == []


@pytest.mark.parametrize("odd", ["", "many", "-1", "9" * 13, "\N{SUPERSCRIPT TWO}", "1.5"])
def test_odd_figures_are_left_out(odd, blocking):
    sent = answer(200, WEBHOOK, X_RateLimit_Limit=odd, X_RateLimit_Remaining=odd, X_RateLimit_Reset=odd)
    with serving(sent) as server:
        assert blocking.call(server, get).rate_limit == RateLimit()


def test_delete(caller):
    with serving(answer(204, b"", "", X_Request_ID="req_3", **FIGURES), answer(200, {"deleted": True})) as server:
        deleted = caller.call(server, delete)
        assert caller.call(server, delete).id == "wh_1"
    assert (server.requests[0].method, server.requests[0].path) == ("DELETE", "/v1/webhooks/wh_1")
    assert (deleted.id, deleted.request_id, deleted.rate_limit.remaining) == ("wh_1", "req_3", 9)


def test_a_repeated_delete_finds_that_the_first_one_was_done(blocking):
    with serving(CUT, answer(404, FORM_A)) as server:
        assert blocking.call(server, delete).id == "wh_1"
    for before in ([], [answer(429)]):
        with serving(*before, answer(404, FORM_A)) as server, pytest.raises(NotFoundError):
            blocking.call(server, delete)


def test_the_raw_response(caller):
    with serving(GOOD, GOOD, page("wh_1"), answer(200, b"<p>", "text/html")) as server:
        raw = caller.call(server, lambda client: client.webhooks.with_raw_response.get("wh_1"))
        same = caller.call(server, lambda client: client.with_raw_response.webhooks.get("wh_1"))
        listed = caller.call(server, lambda client: client.webhooks.with_raw_response.list())
        odd = caller.call(server, lambda client: client.webhooks.with_raw_response.create(url=URL, events=[]))
    assert (raw.status, raw.headers["x-request-id"], raw.request_id, raw.rate_limit.limit) == (
        200,
        "req_1",
        "req_1",
        10,
    )
    assert b"whsec_private" in raw.body
    assert "private" not in repr(raw)
    assert raw.parse() == same.parse()
    assert listed.parse().items[0].id == "wh_1"
    assert odd.body == b"<p>"
    with pytest.raises(OutcomeUnknownError):
        odd.parse()


def test_with_options(blocking):
    def act(client):
        patient = client.with_options(timeout=30, max_retries=5)
        hasty = patient.with_options(max_retries=0)
        hasty.close()  # leaves the HTTP client open, which belongs to the first
        assert patient.webhooks.get("wh_1").id == "wh_1"
        with pytest.raises(ServerError):
            hasty.webhooks.get("wh_1")

    with serving(*[answer(500)] * 5, GOOD, answer(500)) as server:
        blocking.call(server, act)
    assert server.answers == []
    assert len(blocking.waits) == 5


def test_the_http_client_is_closed_with_its_owner_only(blocking):
    given = httpx2.Client()
    with serving(GOOD) as server:
        blocking.call(server, get, http_client=given)
    assert not given.is_closed
    given.close()
    with EnvoyouClient(KEY) as client:
        own = client._connections.http
        assert not own.is_closed
    assert own.is_closed


def test_the_environment_has_the_defaults(monkeypatch):
    monkeypatch.setenv("ENVOYOU_API_KEY", "key_of_the_environment")
    assert repr(EnvoyouClient()) == "EnvoyouClient(base_url='https://api.envoyou.com/v1')"
    with serving(GOOD) as server:
        monkeypatch.setenv("ENVOYOU_BASE_URL", f"{server.url}/")
        with EnvoyouClient() as client:
            get(client)
    assert server.requests[0].headers["authorization"] == "Bearer key_of_the_environment"
    assert server.requests[0].path == "/v1/webhooks/wh_1"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"api_key": None}, "the API key is missing: set ENVOYOU_API_KEY"),
        ({"api_key": ""}, "the API key is missing"),
        ({"api_key": "hush\n"}, "ends with"),
        ({"api_key": "hush hush"}, "ASCII characters without spaces"),
        ({"api_key": "h\N{LATIN SMALL LETTER U WITH DIAERESIS}sh"}, "ASCII"),
        ({"base_url": "api.envoyou.com"}, "must be a URL"),
        ({"base_url": "ftp://127.0.0.1"}, "must be a URL"),
        ({"base_url": "https://u:hush@api.envoyou.com"}, "must not contain a user"),
        ({"base_url": "https://[::1"}, "not a valid URL"),
        ({"base_url": "http://api.envoyou.com/v1"}, "must begin with https"),
        ({"timeout": 0}, "timeout must be"),
        ({"max_retries": -1}, "max_retries must be"),
        ({"max_retries": 1.5}, "max_retries must be"),
    ],
)
def test_an_invalid_setting_is_a_configuration_error(options, problem, monkeypatch):
    monkeypatch.delenv("ENVOYOU_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match=problem) as raised:
        EnvoyouClient(**{"api_key": KEY, **options})
    assert "hush" not in str(raised.value)


def test_without_httpx2_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "httpx2", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'envoyou-webhooks\[client\]'"):
        EnvoyouClient(KEY)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_shares_no_connection():
    with EnvoyouClient(KEY) as client:
        before = client._connections.http
        pid = os.fork()
        if not pid:
            os._exit(0 if client._connections.http is not before else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert client._connections.http is before
