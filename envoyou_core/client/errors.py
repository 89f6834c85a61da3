"""The errors of the management client, and what each one says about its request."""

from __future__ import annotations

from dataclasses import dataclass

from envoyou_core.client.results import RateLimit
from envoyou_core.errors import EnvoyouError

__all__ = [
    "ApiConnectionError",
    "ApiError",
    "ApiStatusError",
    "ApiTimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "FieldIssue",
    "InvalidResponseError",
    "NotFoundError",
    "OutcomeUnknownError",
    "PermissionDeniedError",
    "RateLimitError",
    "ServerError",
    "status_error",
]


@dataclass(frozen=True, slots=True)
class FieldIssue:
    """What is wrong with one field of a request.

    Attributes:
        field: the field's name.
        issue: what is wrong with it, as the API says it.
    """

    field: str
    issue: str


class ApiError(EnvoyouError):
    """A call of the management API has failed. No error contains the API key or a signing secret.

    Attributes:
        message: what went wrong.
        status: the HTTP status of the response; `None` if there was none.
        code: the stable code of the API, such as `rate_limit_exceeded`; `None` if the response has none.
        request_id: the id of the request, for EnvoyOU's support; `None` if the response has none.
        rate_limit: the figures of the response; each is `None` if the response does not have it.
        fields: what is wrong with which field, if the request is invalid.
    """

    is_transient = False
    """Whether the same request may succeed a moment later."""

    may_be_done = False
    """Whether the platform may have done what the request asks for."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        rate_limit: RateLimit | None = None,
        fields: tuple[FieldIssue, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.request_id = request_id
        self.rate_limit = rate_limit or RateLimit()
        self.fields = fields

    def __str__(self) -> str:
        # No colon: "secret: ..." looks like a value, and a redaction would remove the text after it.
        parts = [f"{issue.field} ({issue.issue})" for issue in self.fields]
        named = [str(part) for part in (self.status, self.code) if part is not None]
        request = "" if self.request_id is None else f" (request {self.request_id})"
        return f"{' '.join(named)}{': ' if named else ''}{'; '.join([self.message, *parts])}{request}"


class ApiConnectionError(ApiError):
    """There was no complete response: the connection was refused, cut or broken."""

    is_transient = True

    def __init__(self, message: str, *, was_sent: bool) -> None:
        super().__init__(message)
        self.may_be_done = was_sent


class ApiTimeoutError(ApiConnectionError):
    """There was no complete response within the client's `timeout`."""


class InvalidResponseError(ApiError):
    """The response is a success, but not one of the API: not JSON, cut off, or without a field that it must have."""

    may_be_done = True


class ApiStatusError(ApiError):
    """The response is an error, or a redirect, which is not followed."""


class BadRequestError(ApiStatusError):
    """The request is invalid (400, 422); `fields` may say why. See the guide, "Configure Webhook Settings"."""


class AuthenticationError(ApiStatusError):
    """The API key is missing or wrong (401)."""


class PermissionDeniedError(ApiStatusError):
    """The API key does not permit this (403)."""


class NotFoundError(ApiStatusError):
    """There is no such webhook (404)."""


class RateLimitError(ApiStatusError):
    """Too many requests (429). `rate_limit.retry_after` has the seconds to wait, if the API says so."""

    is_transient = True


class ServerError(ApiStatusError):
    """The platform has failed (5xx)."""

    is_transient = True

    @property
    def may_be_done(self) -> bool:  # type: ignore[override]
        """Not if the platform names a time at which to repeat the request."""
        return not (self.status == 503 and self.rate_limit.retry_after is not None)


class OutcomeUnknownError(ApiError):
    """A webhook may have been created or not, so the request was not repeated. List the webhooks to find out.

    Attributes:
        reason: the error that left it open: an `ApiConnectionError`, `ServerError` or `InvalidResponseError`.
    """

    def __init__(self, reason: ApiError) -> None:
        super().__init__(
            f"the webhook may have been created or not, list the webhooks before you repeat this: {reason.message}",
            status=reason.status,
            code=reason.code,
            request_id=reason.request_id,
            rate_limit=reason.rate_limit,
            fields=reason.fields,
        )
        self.reason = reason


_BY_STATUS = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    422: BadRequestError,
    429: RateLimitError,
}


def status_error(status: int) -> type[ApiStatusError]:
    """Return the class of the error for a status."""
    return ServerError if status >= 500 else _BY_STATUS.get(status, ApiStatusError)
