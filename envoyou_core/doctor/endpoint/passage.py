"""Checks that bodies and headers of signed deliveries arrive unchanged.

The deliveries are genuine and unusable: 400 proves that the signature was right for the body that arrived. The
application keeps such deliveries, so the bodies are always the same, and each is kept once at most.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.request import Request

from envoyou_core.cli.posting import Answer
from envoyou_core.doctor.endpoint.answers import Send, code_of
from envoyou_core.doctor.findings import Finding
from envoyou_core.http import EVENT_TYPE_HEADER
from envoyou_core.reception.signature import Secret, SignedContent
from envoyou_core.testing import sign_delivery

__all__ = ["BODIES", "Passage", "check_passage"]

PLAIN: Final = b'{"envoyou":"doctor"}'
"""A body that nothing has a reason to change."""

SPACED: Final = b'{ "envoyou" :  "doctor",\n\t"created": 1.0, "a": [ ] }'
"""Spaces, a float without fraction, members in no order."""

ENDED: Final = b'\n {"envoyou":"doctor"} \r\n'
"""White space around the body."""

UNICODE: Final = '{"envoyou":"doctor","name":"Zoe\u0308 \\u00e9 \\/ \U0001f600"}'.encode()
"""A combining mark, escapes, a character outside of the basic plane."""

ODD: Final = b"\n " + SPACED[:-2] + b", " + UNICODE[1:] + b" \r\n"
"""All of it in one body."""

CHANGES: Final = (
    (SPACED, "parses the JSON and writes it again"),
    (ENDED, "removes white space around the body"),
    (UNICODE, "normalizes or encodes characters anew"),
)

EVENT: Final = b'{"id":"evt_envoyou_doctor","type":"envoyou.doctor","created":1640995200,"data":{"object":{}}}'
"""An event. It is refused because its header names another type."""

OTHER_TYPE: Final = "envoyou.another"

BODIES: Final = frozenset({PLAIN, SPACED, ENDED, UNICODE, ODD, EVENT})
"""All bodies that may be kept as rejected deliveries."""


@dataclass(frozen=True, slots=True)
class Passage:
    """How signed deliveries are made and sent.

    Attributes:
        url: the URL that receives webhooks.
        send: sends a request.
        secret: the signing secret.
        webhook_id: the endpoint's id.
        signed_content: what is signed.
        headers: the custom headers of the endpoint. Their values are secret.
    """

    url: str
    send: Send
    secret: Secret = field(repr=False)
    webhook_id: str
    signed_content: SignedContent = "raw"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def deliver(self, body: bytes, event_type: str = "envoyou.doctor") -> Answer:
        """Send one signed delivery."""
        delivery = sign_delivery(
            body,
            secret=self.secret,
            webhook_id=self.webhook_id,
            event_type=event_type,
            signed_content=self.signed_content,
        )
        headers = {**delivery.headers, **self.headers}
        return self.send(Request(self.url, delivery.body, headers))  # noqa: S310 - the caller checks the scheme


def check_passage(passage: Passage, *, required_headers: Collection[str], custom: Collection[str]) -> Iterator[Finding]:
    """Send signed deliveries that are unusable, and judge the answers.

    Args:
        passage: how to send them.
        required_headers: the headers that the application requires.
        custom: the names of the custom headers that it requires.
    """
    plain = passage.deliver(PLAIN)
    if (plain.status, code_of(plain)) != (400, "invalid_payload"):
        given = {name.lower() for name in passage.headers}
        yield _refused(plain, sorted(name for name in custom if name.lower() not in given))
        return
    yield Finding.ok("signature", "a signed delivery is recognized: same secret, and the signed headers arrive")
    if passage.signed_content == "raw":
        yield _body_finding(passage)
    # Otherwise the event might be accepted.
    if EVENT_TYPE_HEADER.lower() in {name.lower() for name in required_headers}:
        yield _header_finding(passage.deliver(EVENT, OTHER_TYPE))


def _body_finding(passage: Passage) -> Finding:
    if passage.deliver(ODD).status == 400:
        return Finding.ok("body", "bodies arrive byte for byte")
    causes = [cause for body, cause in CHANGES if passage.deliver(body).status != 400]
    return Finding.problem(
        "body",
        f"something in front of the application changes bodies: it {' and '.join(causes) or 'rewrites some of them'}",
        "let the proxy, the firewall or the middleware pass the bytes of this path on unchanged",
    )


def _header_finding(answer: Answer) -> Finding:
    code = code_of(answer)
    if (answer.status, code) == (400, "header_mismatch"):
        return Finding.ok("headers", "the headers of the guide arrive")
    if code == "missing_header":
        return Finding.problem(
            "headers",
            f"something in front of the application drops a header: {_message(answer)}",
            "let the proxy pass all X-EnvoyOU- headers on; in nginx, see proxy_set_header and underscores_in_headers",
        )
    return Finding.problem(
        "headers", f"a delivery whose header contradicts its body is answered {answer.status}", "see the log"
    )


def _refused(answer: Answer, missing: list[str]) -> Finding:
    if answer.status == 401 and missing:
        return Finding.problem(
            "signature",
            f"signed deliveries were not checked, because the application requires {', '.join(missing)}",
            "give the custom headers of the endpoint with --headers-file",
        )
    if answer.status == 401:
        return Finding.problem(
            "signature",
            "a signed delivery is answered 401: the application at the URL has another secret, or a proxy drops or "
            "changes X-EnvoyOU-Signature or X-EnvoyOU-Timestamp, or the body",
            "see the reason in its log (answered 401: ...), or set ENVOYOU_CAPTURE_REJECTED there and use "
            "`envoyou verify`",
        )
    shown = "not at all" if answer.status is None else f"{answer.status}"
    return Finding.problem(
        "signature", f"a signed and unusable delivery is answered {shown} instead of 400", "see the log"
    )


def _message(answer: Answer) -> str:
    message = json.loads(answer.text).get("message")
    return message if isinstance(message, str) else "a required one"
