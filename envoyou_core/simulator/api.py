"""The management API: what the platform answers to a request. See the guide, "Webhook Management"."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import parse_qs

from envoyou_core.simulator.api_errors import ApiError, ErrorForm, error_document
from envoyou_core.simulator.rate_limit import RateLimit
from envoyou_core.simulator.registry import Registry
from envoyou_core.simulator.webhook import InvalidFieldsError, Webhook, changes_of

__all__ = ["Api", "ApiRequest", "ApiResponse", "Resource", "WebhooksResource", "object_in", "page_limit"]

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 100


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request to the platform.

    Attributes:
        method: in upper case.
        path: without the query.
        query: without the question mark.
        headers: by name in lower case.
        body: as it was sent.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)

    def parameter(self, name: str) -> str | None:
        """Return a parameter of the query, or `None`."""
        values = parse_qs(self.query, keep_blank_values=True).get(name)
        return values[-1] if values else None


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """The platform's answer. `document` is sent as JSON; `None` sends no body."""

    status: int
    document: object = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


class Resource(Protocol):
    """Answers the requests below one path."""

    def answer(self, request: ApiRequest, segments: list[str]) -> ApiResponse:
        """Answer a request whose key is valid.

        Args:
            request: the request.
            segments: of its path, below the resource's own.

        Raises:
            ApiError: the request is refused.
        """


class Api:
    """Authenticates requests and passes them on to resources.

    Args:
        api_key: the key that clients must send.
        resources: by the first segment of their paths.
        rate_limit: of the resources in `limited`.
        limited: the first segments of the paths that are limited.
        error_form: the form of error bodies.
        clock: returns epoch seconds.
    """

    def __init__(
        self,
        *,
        api_key: str,
        resources: Mapping[str, Resource],
        rate_limit: RateLimit,
        limited: frozenset[str],
        error_form: ErrorForm,
        clock: Callable[[], float],
    ) -> None:
        self._key = api_key.encode()
        self._resources = resources
        self._rate_limit = rate_limit
        self._limited = limited
        self._error_form: ErrorForm = error_form
        self._clock = clock

    def handle(self, request: ApiRequest) -> ApiResponse:
        """Answer a request. Each response has a request id."""
        headers = {"X-Request-ID": f"req_{secrets.token_hex(12)}"}
        try:
            response = self._answer(request, headers)
        except ApiError as error:
            headers |= error.headers
            document = error_document(error, self._error_form, request_id=headers["X-Request-ID"], now=self._clock())
            response = ApiResponse(error.status, document)
        return ApiResponse(response.status, response.document, {**response.headers, **headers})

    def _answer(self, request: ApiRequest, headers: dict[str, str]) -> ApiResponse:
        first, *segments = request.path.removeprefix("/").split("/")
        resource = self._resources.get(first)
        self._check_key(request)
        if first in self._limited:
            quota = self._rate_limit.take()
            headers |= quota.headers()
            if quota.retry_after is not None:
                raise ApiError(429, "rate_limit_exceeded", f"Limit of {quota.limit} requests a minute exceeded.")
        if resource is None:
            raise ApiError(404, "not_found", "There is nothing at this path.")
        return resource.answer(request, segments)

    def _check_key(self, request: ApiRequest) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
        if not hmac.compare_digest(given.encode(errors="surrogateescape"), self._key):
            message = "Send the API key as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'."
            raise ApiError(401, "unauthorized", message, headers={"WWW-Authenticate": "Bearer"})


class WebhooksResource:
    """Creates, shows, lists, changes and deletes webhooks.

    Args:
        registry: the webhooks.
        bare_lists: whether a list is answered as an array instead of an object with `items`.
    """

    def __init__(self, registry: Registry, *, bare_lists: bool) -> None:
        self._registry = registry
        self._bare_lists = bare_lists

    def answer(self, request: ApiRequest, segments: list[str]) -> ApiResponse:
        """Answer a request below `/v1`; see `Resource`.

        Raises:
            ApiError: the request is refused.
        """
        match segments, request.method:
            case ["webhooks"], "POST":
                return self._create(request)
            case ["webhooks"], "GET":
                return self._list(request)
            case ["webhooks"], _:
                raise _method_not_allowed("GET, POST")
            case ["webhooks", webhook_id], "GET":
                return ApiResponse(200, _existing(self._registry.get(webhook_id)).as_json())
            case ["webhooks", webhook_id], "PUT":
                changes = _checked(object_in(request), is_new=False)
                return ApiResponse(200, _existing(self._registry.update(webhook_id, changes)).as_json())
            case ["webhooks", webhook_id], "DELETE":
                if not self._registry.delete(webhook_id):
                    raise _no_webhook()
                return ApiResponse(204)
            case ["webhooks", _], _:
                raise _method_not_allowed("DELETE, GET, PUT")
        raise ApiError(404, "not_found", "There is nothing at this path.")

    def _create(self, request: ApiRequest) -> ApiResponse:
        webhook = self._registry.create(_checked(object_in(request), is_new=True))
        # The one response that shows the secret: the platform may have made it.
        return ApiResponse(201, {**webhook.as_json(), "secret": webhook.secret})

    def _list(self, request: ApiRequest) -> ApiResponse:
        limit = page_limit(request)
        cursor = request.parameter("cursor")
        webhooks, last = self._registry.page(0 if cursor is None else _position(cursor), limit)
        headers = {"X-Pagination-Limit": str(limit)}
        if last is not None:
            headers["X-Pagination-Next"] = _cursor(last)
        items = [webhook.as_json() for webhook in webhooks]
        return ApiResponse(200, items if self._bare_lists else {"items": items}, headers)


def object_in(request: ApiRequest) -> dict[str, Any]:
    """Return the JSON object in the body of a request.

    Raises:
        ApiError: the body is not a JSON object.
    """
    try:
        document = json.loads(request.body)
    except (ValueError, RecursionError):
        raise ApiError(400, "invalid_request", "The body must be JSON.") from None
    if not isinstance(document, dict):
        raise ApiError(400, "invalid_request", "The body must be a JSON object.")
    return document


def page_limit(request: ApiRequest) -> int:
    """Return the parameter `limit`: how many items a page has.

    Raises:
        ApiError: it is not a number in the range.
    """
    text = request.parameter("limit")
    if text is None:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_LIMIT)) and 1 <= int(text) <= MAX_LIMIT):
        raise ApiError(400, "invalid_request", f"limit must be an integer from 1 to {MAX_LIMIT}.")
    return int(text)


def _checked(document: dict[str, Any], *, is_new: bool) -> dict[str, Any]:
    try:
        return changes_of(document, is_new=is_new)
    except InvalidFieldsError as error:
        raise ApiError(400, "validation_error", f"Invalid settings: {error}.", issues=error.issues) from None


def _existing(webhook: Webhook | None) -> Webhook:
    if webhook is None:
        raise _no_webhook()
    return webhook


def _no_webhook() -> ApiError:
    return ApiError(404, "not_found", "There is no webhook with this id.")


def _method_not_allowed(allowed: str) -> ApiError:
    return ApiError(405, "method_not_allowed", f"Allowed methods: {allowed}.", headers={"Allow": allowed})


def _cursor(position: int) -> str:
    return base64.urlsafe_b64encode(f"after:{position}".encode()).decode().rstrip("=")


def _position(cursor: str) -> int:
    try:
        text = base64.urlsafe_b64decode(f"{cursor}{'=' * (-len(cursor) % 4)}").decode()
        name, _, position = text.partition(":")
        if name == "after" and position.isascii() and position.isdigit() and _cursor(int(position)) == cursor:
            return int(position)
    except (ValueError, binascii.Error):
        pass
    raise ApiError(400, "invalid_cursor", "The cursor is not one that this API has returned.")
