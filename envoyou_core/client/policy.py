"""The policy of a call: what is sent, which failures are repeated and after how long, and what an error says.

The policy is a flow: it is written once, and `steps.run` and `steps.arun` run it with a blocking or an async transport.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

from envoyou_core.client.errors import ApiError, InvalidResponseError, OutcomeUnknownError
from envoyou_core.client.operations import Operation
from envoyou_core.client.responses import Reply, error_of
from envoyou_core.errors import ConfigurationError
from envoyou_core.reception.secret_text import check_secret_text
from envoyou_core.redaction import remember_secret
from envoyou_core.retry import RetryPolicy
from envoyou_core.steps import Flow, Step
from envoyou_core.validation import check_seconds, is_number

__all__ = [
    "BASE_URL_VARIABLE",
    "DEFAULT_BASE_URL",
    "ApiKey",
    "ApiRequest",
    "ClientSettings",
    "Transport",
    "exchange",
    "read",
    "settings_of",
]

DEFAULT_BASE_URL: Final = "https://api.envoyou.com/v1"
API_KEY_VARIABLE: Final = "ENVOYOU_API_KEY"
BASE_URL_VARIABLE: Final = "ENVOYOU_BASE_URL"

DELAYS: Final = RetryPolicy(initial_delay=0.5, max_delay=8.0, jitter=True)
"""Before repetitions, unless the response says how long to wait."""

MAX_WAIT: Final = 60.0
"""Seconds. If a response asks for a longer wait, the call fails at once, and the error has the seconds."""

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")

Result = TypeVar("Result")


class ApiKey:
    """An API key, which is not shown."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return "ApiKey(...)"

    def authorization(self) -> str:
        """Return the value of the header `Authorization`."""
        return f"Bearer {self._text}"

    def hidden_with(self, private: tuple[str, ...]) -> tuple[str, ...]:
        """Return the texts that no error may repeat: the key and `private`."""
        return (self._text, *private)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """The settings of a client.

    Attributes:
        api_key: the API key.
        base_url: the URL of the API, without a slash at the end.
        timeout: seconds for connecting, for each wait for data, and for the whole response.
        max_retries: how often a call is repeated.
    """

    api_key: ApiKey
    base_url: str
    timeout: float
    max_retries: int

    def __post_init__(self) -> None:
        check_seconds("timeout", self.timeout, minimum=0.001)
        count = self.max_retries
        if not (is_number(count) and isinstance(count, int) and count >= 0):
            raise ConfigurationError("max_retries must be an integer of at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRequest:
    """One HTTP request.

    Attributes:
        method: the HTTP method.
        url: the URL.
        headers: the headers, with the API key.
        content: the body.
        timeout: see `ClientSettings`.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    content: bytes | None = field(repr=False)
    timeout: float


class Transport(Protocol):
    """Makes the steps of a flow."""

    def send(self, request: ApiRequest) -> Step:
        """Return the step that sends a request. Its result is a `Reply`, or an `ApiError` if there was none."""

    def sleep(self, seconds: float) -> Step:
        """Return the step that waits."""


def settings_of(
    api_key: str | None, base_url: str | None, timeout: float, max_retries: int, environ: Mapping[str, str]
) -> ClientSettings:
    """Return the settings of a client. What is `None` is taken from the environment.

    Raises:
        ConfigurationError: a setting is missing or invalid. The error does not contain the key.
    """
    return ClientSettings(
        api_key=_checked_key(environ.get(API_KEY_VARIABLE) if api_key is None else api_key),
        base_url=_checked_url(base_url or environ.get(BASE_URL_VARIABLE) or DEFAULT_BASE_URL),
        timeout=timeout,
        max_retries=max_retries,
    )


def exchange(operation: Operation[Any], settings: ClientSettings, transport: Transport) -> Flow[Reply]:
    """Perform an operation, and repeat it while that is safe and may help.

    Raises:
        ApiError: the last failure; `OutcomeUnknownError` if a webhook may have been created.
    """
    request = _request(operation, settings)
    may_be_done = False
    for attempt in range(1, settings.max_retries + 2):
        answer = _judged((yield transport.send(request)), operation, settings.api_key, may_be_done)
        if isinstance(answer, Reply):
            return answer
        failure = answer
        may_be_done = may_be_done or failure.may_be_done
        delay = _delay(failure, attempt)
        is_safe = operation.is_idempotent or not failure.may_be_done
        if attempt > settings.max_retries or not (failure.is_transient and is_safe) or delay > MAX_WAIT:
            raise _final(operation, failure)
        yield transport.sleep(delay)
    raise AssertionError("the last attempt returns or raises")


def read(operation: Operation[Result], reply: Reply) -> Result:
    """Return the result of a successful response.

    Raises:
        InvalidResponseError: the response is not one of the API.
        OutcomeUnknownError: likewise, and a webhook may have been created.
    """
    failure: ApiError
    try:
        return operation.read(reply)
    except InvalidResponseError as error:
        failure = error
    raise _final(operation, failure)


def _judged(
    answer: Reply | ApiError, operation: Operation[Any], api_key: ApiKey, may_be_done: bool
) -> Reply | ApiError:
    """Return a successful response, or the error that a response is."""
    if isinstance(answer, ApiError):
        return answer
    if may_be_done and operation.method == "DELETE" and answer.status == 404:
        # An earlier attempt has deleted it, and its response did not arrive.
        return answer
    return error_of(answer, api_key.hidden_with(operation.private)) or answer


def _final(operation: Operation[Any], failure: ApiError) -> ApiError:
    return OutcomeUnknownError(failure) if failure.may_be_done and not operation.is_idempotent else failure


def _delay(failure: ApiError, attempt: int) -> float:
    named = failure.rate_limit.retry_after
    return DELAYS.delay_after(attempt) if named is None else named


def _request(operation: Operation[Any], settings: ClientSettings) -> ApiRequest:
    headers = {
        "Accept": "application/json",
        "Authorization": settings.api_key.authorization(),
        "User-Agent": _user_agent(),
    }
    if operation.content is not None:
        headers["Content-Type"] = "application/json"
    return ApiRequest(
        method=operation.method,
        url=settings.base_url + operation.path,
        headers=headers,
        content=operation.content,
        timeout=settings.timeout,
    )


@lru_cache(1)
def _user_agent() -> str:
    own, http = metadata.version("envoyou-webhooks"), metadata.version("httpx2")
    return f"envoyou-webhooks/{own} python/{platform.python_version()} httpx2/{http}"


def _checked_key(text: str | None) -> ApiKey:
    if not text:
        raise ConfigurationError(f"the API key is missing: set {API_KEY_VARIABLE}, or pass api_key")
    if not isinstance(text, str):
        raise ConfigurationError(f"the API key must be a str, got {type(text).__name__}")
    check_secret_text(text, "the API key")
    if not text.isascii() or " " in text:
        raise ConfigurationError("the API key must consist of ASCII characters without spaces")
    remember_secret(text)
    return ApiKey(text)


def _checked_url(text: str) -> str:
    """Return the base URL without a slash at the end. Errors do not quote it, because it may contain a password."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError("base_url is not a valid URL") from None
    if parts.scheme not in {"http", "https"} or not host:
        raise ConfigurationError(f"base_url must be a URL such as {DEFAULT_BASE_URL}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigurationError("base_url must not contain a user, a query or a fragment")
    if parts.scheme == "http" and host not in LOOPBACK:
        raise ConfigurationError(f"base_url must begin with https://, because {host} would get the API key unencrypted")
    return text.rstrip("/")
