"""Posts signed deliveries to a URL one after the other, and counts the answers."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from ssl import SSLContext
from statistics import median, quantiles
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import BaseHandler, HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from envoyou_core.errors import ConfigurationError
from envoyou_core.testing import Delivery

__all__ = ["Answer", "Tally", "check_url", "curl_command", "paced", "post", "send"]

TIMEOUT = 10.0
"""Seconds."""

MAX_TEXT = 10_000
"""Bytes of an answer's body that are read."""

MAX_KINDS = 20
"""Different answers that are counted separately."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one delivery.

    Attributes:
        status: the HTTP status; `None` if there was no response.
        text: the body, or why there was no response.
        seconds: the time from the request to the end of the answer.
        headers: the headers of the answer, by their names in lower case.
    """

    status: int | None
    text: str
    seconds: float
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Tally:
    """The answers to several deliveries.

    Attributes:
        kinds: how many answers had the same status and text.
        seconds: the time of each answer; deliveries without a response have none.
    """

    kinds: Counter[tuple[int | None, str]] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def add(self, answer: Answer) -> None:
        """Count one answer. After 20 different ones, the texts of others are not kept."""
        kind = (answer.status, answer.text)
        if kind not in self.kinds and len(self.kinds) >= MAX_KINDS:
            kind = (answer.status, "...")
        self.kinds[kind] += 1
        if answer.status is not None:
            self.seconds.append(answer.seconds)

    def are_all(self, status: int) -> bool:
        """Whether each answer had this status."""
        return all(each == status for each, _ in self.kinds)

    def milliseconds(self) -> dict[str, float]:
        """Return the median, the 95th percentile and the maximum of the times; empty without a response."""
        if not self.seconds:
            return {}
        p95 = quantiles(self.seconds, n=20, method="inclusive")[-1] if len(self.seconds) > 1 else self.seconds[0]
        found = {"median": median(self.seconds), "p95": p95, "max": max(self.seconds)}
        return {name: round(value * 1000, 1) for name, value in found.items()}


def check_url(url: str) -> None:
    """Check that a URL can be posted to.

    Raises:
        ConfigurationError: its scheme is not http or https, or it has no host.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigurationError(f"the URL must be one such as http://127.0.0.1:8000/webhooks/envoyou, got {url!r}")


def post(url: str, delivery: Delivery) -> Answer:
    """Post one delivery. Redirects are not followed, because the platform does not follow them.

    Args:
        url: a URL that `check_url` accepts.
        delivery: the request.
    """
    return send(Request(url, delivery.body, delivery.headers))  # noqa: S310 - the scheme is checked


def send(request: Request, *, tls: SSLContext | None = None) -> Answer:
    """Send one request. Redirects are not followed.

    Args:
        request: a request to a URL that `check_url` accepts.
        tls: how the certificate of the server is verified; by default, as Python does.
    """
    handlers: list[BaseHandler | type[BaseHandler]] = [_NoRedirects]
    if tls is not None:
        handlers.append(HTTPSHandler(context=tls))
    began = time.perf_counter()
    headers: Iterable[tuple[str, str]] = ()
    try:
        with build_opener(*handlers).open(request, timeout=TIMEOUT) as response:
            status, text = response.status, response.read(MAX_TEXT).decode(errors="replace")
            headers = response.headers.items()
    except HTTPError as response:
        with response:
            status, text, headers = response.code, _text_of(response), response.headers.items()
    except (OSError, HTTPException) as error:
        status, text = None, f"{getattr(error, 'reason', error)}"
    lower = {name.lower(): value for name, value in headers}
    return Answer(status, text, time.perf_counter() - began, lower)


def paced(deliveries: Iterable[Delivery], rate: float | None) -> Iterator[Delivery]:
    """Yield deliveries, at most `rate` in a second; `None` for no limit."""
    began = time.monotonic()
    for number, delivery in enumerate(deliveries):
        if rate is not None and (wait := began + number / rate - time.monotonic()) > 0:
            time.sleep(wait)
        yield delivery


def curl_command(url: str, delivery: Delivery) -> str:
    """Return the curl command that sends this delivery.

    Raises:
        ConfigurationError: the body has bytes that an argument of a command cannot have.
    """
    try:
        body = delivery.body.decode()
    except UnicodeDecodeError:
        raise ConfigurationError("the body is not UTF-8, so it cannot be an argument of curl") from None
    if "\0" in body:
        raise ConfigurationError("the body contains a null byte, so it cannot be an argument of curl")
    headers = [f"-H {shlex.quote(f'{name}: {value}')}" for name, value in delivery.headers.items()]
    # `--data` and `--data-binary` would read a file if the body began with @.
    return " \\\n  ".join([f"curl -sS {shlex.quote(url)}", *headers, f"--data-raw {shlex.quote(body)}"])


class _NoRedirects(HTTPRedirectHandler):
    # The request to the new location would be a GET without the body, and its response would look like success.
    def redirect_request(self, *_redirect: object) -> None:
        """Follow no redirect."""


def _text_of(response: HTTPError) -> str:
    location = response.headers.get("Location")
    if 300 <= response.code < 400 and location is not None:
        return f"redirect to {location}; the platform does not follow redirects"
    return response.read(MAX_TEXT).decode(errors="replace")
