"""The calls of the management API: what each one sends, and how its response is read.

See the guide, "Register Webhook URL" and "Webhook Management".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from envoyou_core.client.responses import (
    Reply,
    next_cursor_of,
    page_size_of,
    rate_limit_of,
    request_id_of,
    webhook_of,
    webhooks_of,
)
from envoyou_core.client.results import OMITTED, DeletedWebhook, DeliveryRetryPolicy, Webhook

__all__ = ["Operation", "create", "delete", "get", "list_page", "update"]

PATH: Final = "/webhooks"

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Operation(Generic[Result]):
    """One call.

    Attributes:
        method: the HTTP method.
        path: the path below the base URL, with the query.
        read: returns the result of a successful response, or raises `InvalidResponseError`.
        content: the JSON body, if any.
        private: texts of the request that no error may repeat.
    """

    method: str
    path: str
    read: Callable[[Reply], Result] = field(repr=False)
    content: bytes | None = field(default=None, repr=False)
    private: tuple[str, ...] = field(default=(), repr=False)

    @property
    def is_idempotent(self) -> bool:
        """Whether doing it twice leaves the platform as doing it once does."""
        return self.method != "POST"


def create(**settings: Any) -> Operation[Webhook]:
    """Register a webhook. Settings that are `OMITTED` are not sent."""
    return _writing("POST", PATH, settings)


def get(webhook_id: str) -> Operation[Webhook]:
    """Return one webhook."""
    return Operation("GET", _path(webhook_id), webhook_of)


def list_page(limit: int | None, cursor: str | None, make_page: Callable[..., Result]) -> Operation[Result]:
    """Return a page of the webhooks, which `make_page` makes from the fields that every page has."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    query = urlencode({name: it for name, it in (("limit", limit), ("cursor", cursor)) if it is not None})

    def read(reply: Reply) -> Result:
        return make_page(
            items=webhooks_of(reply),
            next_cursor=next_cursor_of(reply),
            limit=page_size_of(reply),
            request_id=request_id_of(reply),
            rate_limit=rate_limit_of(reply),
        )

    return Operation("GET", f"{PATH}?{query}" if query else PATH, read)


def update(webhook_id: str, **settings: Any) -> Operation[Webhook]:
    """Change the settings of a webhook that are not `OMITTED`."""
    if all(value is OMITTED for value in settings.values()):
        raise ValueError("nothing to update: name at least one setting")
    return _writing("PUT", _path(webhook_id), settings)


def delete(webhook_id: str) -> Operation[DeletedWebhook]:
    """Delete a webhook."""

    def read(reply: Reply) -> DeletedWebhook:
        return DeletedWebhook(id=webhook_id, request_id=request_id_of(reply), rate_limit=rate_limit_of(reply))

    return Operation("DELETE", _path(webhook_id), read)


def _path(webhook_id: str) -> str:
    # Dots alone would name another resource.
    if not webhook_id.strip("."):
        raise ValueError("expected the id of a webhook, such as 'wh_1234567890'")
    return f"{PATH}/{quote(webhook_id, safe='')}"


def _writing(method: str, path: str, settings: Mapping[str, Any]) -> Operation[Webhook]:
    given = {name: value for name, value in settings.items() if value is not OMITTED}
    if "events" in given:
        given["events"] = _event_types(given["events"])
    if isinstance(policy := given.get("retry_policy"), DeliveryRetryPolicy):
        known = {name: getattr(policy, name) for name in ("max_attempts", "backoff_multiplier", "initial_delay")}
        given["retry_policy"] = {**policy.extra, **known}
    if isinstance(headers := given.get("headers"), Mapping):
        given["headers"] = dict(headers)
    try:
        content = msgspec.json.encode(given)
    except (TypeError, ValueError, msgspec.MsgspecError):
        names = ", ".join(given)
        raise ValueError(f"the settings {names} cannot be written as JSON") from None
    return Operation(method, path, webhook_of, content, tuple(_private(given)))


def _event_types(events: Sequence[str]) -> list[str]:
    if isinstance(events, str):
        raise ValueError(f"events must be a sequence of event types, such as [{events!r}], got a str")
    return list(events)


def _private(given: Mapping[str, Any]) -> Iterator[str]:
    secret, headers = given.get("secret"), given.get("headers")
    if isinstance(secret, str):
        yield secret
    if isinstance(headers, dict):
        yield from (value for value in headers.values() if isinstance(value, str) and value)
