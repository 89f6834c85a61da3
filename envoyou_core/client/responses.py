"""From a response of the management API to a result or an error."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import msgspec

from envoyou_core.client.errors import ApiStatusError, FieldIssue, InvalidResponseError, status_error
from envoyou_core.client.results import DeliveryRetryPolicy, RateLimit, Webhook
from envoyou_core.redaction import excerpt, printable, redact

__all__ = [
    "Reply",
    "error_of",
    "next_cursor_of",
    "page_size_of",
    "rate_limit_of",
    "request_id_of",
    "webhook_of",
    "webhooks_of",
]

MAX_TEXT: Final = 500
"""Characters of a text of the platform in an error."""

MAX_FIELDS: Final = 20
MAX_SECONDS: Final = 253_402_300_799
"""The end of the year 9999 in seconds since the epoch, the last time that `datetime` knows."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete response.

    Attributes:
        status: the HTTP status.
        headers: the headers, with names in lower case.
        body: the body, decoded as its `Content-Encoding` says.
        received_at: when it came, in seconds since the epoch.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    received_at: float = 0.0


def request_id_of(reply: Reply) -> str | None:
    """Return the id of the request, from the header or else from the body of an error."""
    found = reply.headers.get("x-request-id")
    if not found:
        document = _json(reply.body)
        found = document.get("request_id") if isinstance(document, dict) else None
    return _cleaned(found) if isinstance(found, str) and found else None


def rate_limit_of(reply: Reply) -> RateLimit:
    """Return the rate-limit figures of a response. A figure that is not a number is left out."""
    headers = reply.headers
    waits = [_wait(headers.get(name), reply.received_at) for name in ("x-ratelimit-retry-after", "retry-after")]
    return RateLimit(
        limit=_count(headers.get("x-ratelimit-limit")),
        remaining=_count(headers.get("x-ratelimit-remaining")),
        reset=_count(headers.get("x-ratelimit-reset")),
        retry_after=max((wait for wait in waits if wait is not None), default=None),
    )


def error_of(reply: Reply, private: Collection[str]) -> ApiStatusError | None:
    """Return the error that a response is, unless it is a success. Both forms of error body are read.

    Args:
        reply: the response.
        private: texts of the request that the error must not repeat.
    """
    if 200 <= reply.status < 300:
        return None
    code, message, fields = _error_body(_json(reply.body))
    return status_error(reply.status)(
        _cleaned(message, private) if message else _without_error_body(reply),
        status=reply.status,
        code=_cleaned(code, private) if code else None,
        request_id=request_id_of(reply),
        rate_limit=rate_limit_of(reply),
        fields=tuple(FieldIssue(_cleaned(name, private), _cleaned(issue, private)) for name, issue in fields),
    )


def webhook_of(reply: Reply) -> Webhook:
    """Return the webhook in a response.

    Raises:
        InvalidResponseError: there is none.
    """
    return _webhook(_document(reply), reply)


def webhooks_of(reply: Reply) -> tuple[Webhook, ...]:
    """Return the webhooks in a response to a listing: an array, or an object with `items`.

    Raises:
        InvalidResponseError: it is something else.
    """
    document = _document(reply)
    items = document.get("items") if isinstance(document, dict) else document
    if not isinstance(items, list):
        raise _invalid("expected an array of webhooks, or an object with the array 'items'", reply)
    return tuple(_webhook(item, reply) for item in items)


def next_cursor_of(reply: Reply) -> str | None:
    """Return the cursor of the next page; `None` at the end."""
    return reply.headers.get("x-pagination-next") or None


def page_size_of(reply: Reply) -> int | None:
    """Return the maximum number of items of a page, as the response states it."""
    return _count(reply.headers.get("x-pagination-limit"))


class _WebhookFields(msgspec.Struct):
    """The members of a webhook that this release knows, with the types that they must have."""

    id: str
    url: str
    events: tuple[str, ...]
    active: bool | None = None
    secret: str | None = None
    retry_policy: dict[str, Any] | None = None
    headers: dict[str, str] | None = None


class _RetryPolicyFields(msgspec.Struct):
    max_attempts: int = 5
    backoff_multiplier: int | float = 2
    initial_delay: int = 1000


def _webhook(document: object, reply: Reply) -> Webhook:
    if not isinstance(document, dict):
        raise _invalid(f"expected a webhook as a JSON object, got {type(document).__name__}", reply)
    try:
        known = msgspec.convert(document, _WebhookFields)
        policy = known.retry_policy
        retry_policy = None if policy is None else _retry_policy(policy)
    except msgspec.ValidationError as error:
        # The error names the member and the types, not the value.
        raise _invalid(f"not a webhook: {error}", reply) from None
    return Webhook(
        id=known.id,
        url=known.url,
        events=known.events,
        active=known.active,
        secret=known.secret,
        retry_policy=retry_policy,
        headers=known.headers or {},
        extra=_others(document, _WebhookFields),
        request_id=request_id_of(reply),
        rate_limit=rate_limit_of(reply),
    )


def _retry_policy(document: dict[str, Any]) -> DeliveryRetryPolicy:
    known = msgspec.convert(document, _RetryPolicyFields)
    return DeliveryRetryPolicy(
        max_attempts=known.max_attempts,
        backoff_multiplier=known.backoff_multiplier,
        initial_delay=known.initial_delay,
        extra=_others(document, _RetryPolicyFields),
    )


def _others(document: dict[str, Any], known: type[msgspec.Struct]) -> Mapping[str, Any]:
    return {name: it for name, it in document.items() if name not in known.__struct_fields__}


def _document(reply: Reply) -> Any:
    content_type = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not reply.body:
        raise _invalid("the body is empty", reply)
    if content_type != "application/json" and not content_type.endswith("+json"):
        raise _invalid(f"expected JSON, got {_cleaned(content_type) or 'no content type'}", reply)
    try:
        return msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise _invalid("the body is not valid JSON", reply) from None


def _invalid(problem: str, reply: Reply) -> InvalidResponseError:
    return InvalidResponseError(
        f"the response is not one of the EnvoyOU API: {problem}",
        status=reply.status,
        request_id=request_id_of(reply),
        rate_limit=rate_limit_of(reply),
    )


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def _error_body(document: object) -> tuple[str | None, str | None, list[tuple[str, str]]]:
    """Return the code, the message and what is wrong with which field, from either form."""
    if not isinstance(document, dict):
        return None, None, []
    error = document.get("error")
    if isinstance(error, dict):
        details = error.get("details")
        code, message, issues = error.get("code"), error.get("message"), details
    else:
        code, message, issues = error, document.get("message"), document.get("fields")
    listed = issues if isinstance(issues, list) else [issues]
    fields = [
        (str(issue["field"]), str(issue.get("issue", "")))
        for issue in listed[:MAX_FIELDS]
        if isinstance(issue, dict) and isinstance(issue.get("field"), str)
    ]
    return _text(code), _text(message), fields


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _without_error_body(reply: Reply) -> str:
    if 300 <= reply.status < 400:
        return "the API answered with a redirect, which is not followed; check base_url"
    content_type = _cleaned(reply.headers.get("content-type", "").partition(";")[0].strip())
    return f"the response has no JSON error, but {content_type or 'no content type'} of {len(reply.body)} bytes"


def _cleaned(text: str, private: Collection[str] = ()) -> str:
    """Return a text of the platform in one line, bounded, and without secrets."""
    return redact(printable(excerpt(text, private)))[:MAX_TEXT]


def _count(text: str | None) -> int | None:
    if text is None or not (text.isascii() and text.isdecimal() and len(text) <= 12):
        return None
    number = int(text)
    return number if number <= MAX_SECONDS else None


def _wait(text: str | None, now: float) -> float | None:
    """Return the seconds that a `Retry-After` names, as a number or as a date."""
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = max(0.0, (aware - datetime.fromtimestamp(now, UTC)).total_seconds())
    return seconds if 0 <= seconds <= MAX_SECONDS else None
