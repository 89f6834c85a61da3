"""Checks what a URL answers to requests that it must refuse: the contract, redirects, limits of a proxy."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.request import Request

from envoyou_core.cli.posting import Answer
from envoyou_core.doctor.clock import clock_finding
from envoyou_core.doctor.findings import Finding, Level

__all__ = ["Send", "check_contract", "code_of"]

CHECK: Final = "answers"

SLOW: Final = 3.0
"""Seconds. The platform waits for longer, but a deploy or a burst leaves no room."""

LARGE: Final = 256 * 1024
"""Bytes: a large payload, and still a quarter of the default limit."""

Send = Callable[[Request], Answer]
"""Sends one request, without following redirects."""

HEADERS: Final = {
    "Content-Type": "application/json",
    "X-EnvoyOU-Signature": f"v1,{'0' * 64}",
    "X-EnvoyOU-Webhook-ID": "envoyou_doctor",
    "X-EnvoyOU-Event-Type": "envoyou.doctor",
}


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an answer other than the contract's means.

    Attributes:
        text: its cause.
        advice: what to do.
    """

    text: str
    advice: str


MEANINGS: Final = {
    200: Meaning("something else than this library answers", "correct the path of the URL"),
    400: Meaning("a server or a framework refuses the request before the application", "in Django, see ALLOWED_HOSTS"),
    401: Meaning("something in front of the application asks for a login", "exempt this path from it"),
    403: Meaning(
        "CSRF protection or a firewall refuses the request", "exempt this path; in Django, see `manage.py check`"
    ),
    404: Meaning("there is no such path", "correct the URL, or the path in the application or the proxy"),
    405: Meaning("the path takes no POST", "correct the path, or the methods that the proxy allows"),
    411: Meaning("the server requires a Content-Length", "let the proxy buffer requests"),
    413: Meaning("a proxy limits the size of bodies", "raise its limit, in nginx client_max_body_size"),
    415: Meaning("something in front of the application refuses JSON", "exempt this path from it"),
    502: Meaning("the proxy does not reach the application", "start the application, or correct the proxy"),
    503: Meaning("the application is not available", "see the log of the application, and `envoyou doctor` there"),
    504: Meaning("the application does not answer the proxy in time", "see the log of the application"),
}


def code_of(answer: Answer) -> str:
    """Return the stable code in the body of one of this library's answers; empty if it is another body."""
    try:
        document: Any = json.loads(answer.text)
    except (ValueError, RecursionError):
        return ""
    code = document.get("error") if isinstance(document, dict) else None
    return code if isinstance(code, str) else ""


def check_contract(url: str, send: Send, *, tolerance: float) -> Iterator[Finding]:
    """Send a forged delivery, a GET and a large forged delivery. Nothing of it is stored.

    Args:
        url: the URL that receives webhooks.
        send: sends a request.
        tolerance: seconds by which the clock of the server may differ.
    """
    forged = _post(url, send, b"{}")
    if forged.status is None:
        yield Finding.problem(
            CHECK, f"no response from {url}: {forged.text}", "start the server, and see the log of the proxy"
        )
        return
    if 300 <= forged.status < 400:
        yield _redirect(forged)
        return
    if (forged.status, code_of(forged)) != (401, "unauthorized"):
        yield _unexpected("a delivery with a wrong signature", forged, "401")
        return
    yield Finding.ok(CHECK, f"a delivery with a wrong signature is answered 401, in {forged.seconds * 1000:.0f} ms")
    if forged.seconds > SLOW:
        yield Finding.warning(CHECK, f"the answer took {forged.seconds:.1f} s", "find what is slow in front of it")
    clock = clock_finding(forged.headers.get("date"), time.time(), tolerance=tolerance, source=url)
    if clock.level is not Level.OK:
        yield clock
    got = send(Request(url, headers={"Accept": "*/*"}))  # noqa: S310 - the scheme is checked by the caller
    if (got.status, code_of(got)) == (405, "method_not_allowed"):
        yield Finding.ok(CHECK, "a GET is answered 405")
    else:
        yield Finding.warning(
            CHECK, f"a GET is answered {_shown(got)} instead of 405", "only this library should answer at this path"
        )
    large = _post(url, send, b"[" + b" " * LARGE + b"]")
    if large.status == 401:
        yield Finding.ok("size", f"a body of {LARGE // 1024} KiB reaches the application")
    else:
        yield Finding.warning(
            "size",
            f"a body of {LARGE // 1024} KiB is answered {_shown(large)}",
            "raise the limit of the proxy, in nginx client_max_body_size, or MAX_BODY_SIZE",
        )


def _post(url: str, send: Send, body: bytes) -> Answer:
    headers = HEADERS | {"X-EnvoyOU-Timestamp": str(int(time.time()))}
    return send(Request(url, body, headers))  # noqa: S310 - the scheme is checked by the caller


def _redirect(answer: Answer) -> Finding:
    location = answer.headers.get("location", "another place")
    return Finding.problem(
        "redirects",
        f"a delivery is answered {answer.status}, a redirect to {location}: EnvoyOU does not follow it",
        f"register {location}, or remove the redirect for this path",
    )


def _unexpected(what: str, answer: Answer, expected: str) -> Finding:
    meaning = MEANINGS.get(answer.status or 0, Meaning("the answer is not one of this library", "see the log"))
    return Finding.problem(
        CHECK, f"{what} is answered {_shown(answer)} instead of {expected}: {meaning.text}", meaning.advice
    )


def _shown(answer: Answer) -> str:
    return "not at all" if answer.status is None else str(answer.status)
