"""Requests from any server's headers, the checks before a body is read, and the bytes of every response."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envoyou_core import (
    MissingHeaderError,
    SignatureMismatchError,
    WebhookError,
    WebhookRequest,
    WebhookResponse,
    errors,
)
from envoyou_core.errors import (
    LengthRequiredError,
    MethodNotAllowedError,
    PayloadTooLargeError,
    UnavailableError,
    UnsupportedMediaTypeError,
)
from envoyou_core.http import ACCEPTED, DUPLICATE, REFUSALS, RequestLimits

LIMITS = RequestLimits(max_body_size=1000)

HEADERS = {
    "Content-Type": "application/json",
    "X-EnvoyOU-Signature": "v1,00",
    "X-EnvoyOU-Timestamp": "1640995200",
    "X-EnvoyOU-Webhook-ID": "wh_1",
    "X-EnvoyOU-Event-Type": "user.created",
    "X-EnvoyOU-Nonce": "4f2c",
}
EXPECTED = WebhookRequest(
    "POST",
    b"{}",
    content_type=b"application/json",
    signature=b"v1,00",
    timestamp=b"1640995200",
    webhook_id=b"wh_1",
    event_type=b"user.created",
    nonce=b"4f2c",
)


def test_a_request_from_headers_of_any_type():
    assert WebhookRequest.from_http("post", HEADERS, b"{}") == EXPECTED
    assert WebhookRequest.from_http("POST", [("x-other", "1"), *HEADERS.items()], b"{}") == EXPECTED
    raw = {name.swapcase().encode(): value.encode() for name, value in HEADERS.items()}
    assert WebhookRequest.from_http("POST", raw, bytearray(b"{}")) == EXPECTED


def test_a_request_from_an_asgi_scope():
    pairs = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
    assert WebhookRequest.from_asgi("POST", pairs, b"{}") == EXPECTED


def test_a_request_from_a_wsgi_environment():
    environ = {
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": " application/json ",
        "HTTP_X_ENVOYOU_SIGNATURE": "v1,00",
        "HTTP_X_ENVOYOU_TIMESTAMP": "1640995200",
        "HTTP_X_ENVOYOU_WEBHOOK_ID": "wh_1",
        "HTTP_X_ENVOYOU_EVENT_TYPE": "user.created",
        "HTTP_X_ENVOYOU_NONCE": "4f2c",
        "HTTP_X_OTHER": "1",
    }
    assert WebhookRequest.from_wsgi(environ, b"{}") == EXPECTED
    assert WebhookRequest.from_wsgi({}, b"") == WebhookRequest("", b"")


def test_a_missing_header_is_none():
    request = WebhookRequest.from_http("GET", {}, b"")
    assert (request.signature, request.nonce, request.content_type) == (None, None, None)


def test_white_space_around_a_value_is_removed():
    assert WebhookRequest.from_http("POST", {"X-EnvoyOU-Nonce": " \t4f2c \t"}, b"").nonce == b"4f2c"


def test_the_values_of_a_repeated_header_are_joined():
    pairs = [("X-EnvoyOU-Nonce", "a"), ("x-envoyou-nonce", "b")]
    assert WebhookRequest.from_http("POST", pairs, b"").nonce == b"a,b"


@given(value=st.text())
def test_a_header_may_be_any_text(value):
    request = WebhookRequest.from_http("POST", {"X-EnvoyOU-Nonce": value}, b"")
    assert isinstance(request.nonce, bytes)


def test_a_repr_shows_neither_body_nor_signature():
    request = WebhookRequest.from_http("POST", HEADERS, b"private")
    assert repr(request) == "WebhookRequest('POST', 7 bytes)"


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/json",
        b"Application/JSON",
        b"application/json; charset=utf-8",
        b"application/json;charset=utf-8;x=y",
        b" application/json ;",
        b"application/cloudevents+json",
        b"application/vnd.envoyou.v1+JSON; a=b",
    ],
)
def test_a_json_content_type_is_accepted(content_type):
    LIMITS.check("POST", content_type, 1000)


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        b"",
        b"text/plain",
        b"text/json",
        b"application/jsonp",
        b"application/x-www-form-urlencoded",
        b"text/plain; application/json",
        b"application/json, application/json",
        b"json",
        b"text/x+json",
        b"\xff",
    ],
)
def test_another_content_type_is_unsupported(content_type):
    with pytest.raises(UnsupportedMediaTypeError):
        LIMITS.check("POST", content_type, 0)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS", "post", "", "PATCH"])
def test_only_post_is_allowed(method):
    with pytest.raises(MethodNotAllowedError):
        LIMITS.check(method, b"application/json", 0)


def test_a_body_larger_than_the_limit_is_too_large():
    with pytest.raises(PayloadTooLargeError, match="larger than 1000 bytes"):
        LIMITS.check("POST", b"application/json", 1001)


@pytest.mark.parametrize(
    ("error", "status", "code", "extra"),
    [
        (SignatureMismatchError("the inner reason"), 401, "unauthorized", ()),
        (MissingHeaderError(), 400, "missing_header", ()),
        (MethodNotAllowedError(), 405, "method_not_allowed", (("Allow", "POST"),)),
        (LengthRequiredError(), 411, "length_required", ()),
        (PayloadTooLargeError(), 413, "payload_too_large", ()),
        (UnsupportedMediaTypeError(), 415, "unsupported_media_type", ()),
        (UnavailableError("the host db-7 refused"), 503, "unavailable", (("Retry-After", "1"),)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_response_to_an_error(error, status, code, extra):
    response = WebhookResponse.of_error(error)
    assert response.status == status
    assert response.headers == (("Content-Type", "application/json"), *extra)
    answer = json.loads(response.body)
    assert answer.keys() == {"error", "message"}
    assert answer["error"] == code
    assert answer["message"]
    assert "inner reason" not in answer["message"]
    assert "db-7" not in answer["message"]


def test_the_responses_to_accepted_events():
    assert (ACCEPTED.status, json.loads(ACCEPTED.body)) == (200, {"received": True})
    assert (DUPLICATE.status, json.loads(DUPLICATE.body)) == (200, {"received": True, "duplicate": True})
    assert ACCEPTED.headers == DUPLICATE.headers == (("Content-Type", "application/json"),)


def test_refusals_has_every_status_and_code_once():
    listed = [(error.status, error.code) for error in REFUSALS]
    errors_of_requests = {value for value in vars(errors).values() if is_refusal(value)}
    assert sorted(listed) == sorted({(error.status, error.code) for error in errors_of_requests})


def is_refusal(value):
    return isinstance(value, type) and issubclass(value, WebhookError) and value is not WebhookError
