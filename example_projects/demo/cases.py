"""The deliveries, each with its expected response, event in the inbox and effects."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from envoyou_core import Event
from envoyou_core.inbox import Status
from envoyou_core.testing import Delivery, sample_event, sign_delivery

__all__ = [
    "ACCEPTED",
    "DUPLICATE",
    "REFUSED",
    "Answer",
    "Calls",
    "Case",
    "Effect",
    "Kept",
    "Page",
    "Posted",
    "Sent",
    "SentAgain",
    "make_cases",
]

PATH = "/webhooks/envoyou"


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    body: Mapping[str, Any]


ACCEPTED = Answer(200, {"received": True})
DUPLICATE = Answer(200, {"received": True, "duplicate": True})
REFUSED = Answer(401, {"error": "unauthorized", "message": "The request could not be authenticated."})


@dataclass(frozen=True)
class Kept:
    """The expected final state of an event in the inbox."""

    status: Status = Status.PROCESSED
    attempts: int = 1


@dataclass(frozen=True)
class Page:
    """The page at `path` must contain at least `says`; `None` if the page must not exist."""

    path: str
    says: Mapping[str, Any] | list[Mapping[str, Any]] | None


@dataclass(frozen=True)
class Calls:
    """The expected responses of the on-call service for an event; `waits` are the minimum seconds between the calls."""

    answers: tuple[int, ...]
    waits: tuple[float, ...] = ()


Effect = Page | Calls


@dataclass(frozen=True)
class Sent:
    """The platform creates an event about `object`, and delivers it."""

    object: Mapping[str, Any]


@dataclass(frozen=True)
class SentAgain:
    """The platform delivers the event of the case before again."""


@dataclass(frozen=True)
class Posted:
    """A request that the local platform does not make: it is posted without it."""

    event: Event
    delivery: Delivery


@dataclass(frozen=True)
class Case:
    """One delivery and its expected outcome.

    Attributes:
        about: what is special about the delivery; empty for a plain genuine one.
        type: the event type.
        source: how the delivery is made.
        answer: the expected response.
        kept: the expected event in the inbox; `None` if there must be none.
        effects: the expected effects of the handlers.
        failures: how many calls of the on-call service fail at first.
    """

    about: str
    type: str
    source: Sent | SentAgain | Posted
    answer: Answer
    kept: Kept | None
    effects: tuple[Effect, ...]
    failures: int = 0


def make_cases(secret: str) -> list[Case]:
    """Return deliveries of all 14 event types of the guide, with duplicates, forgeries and failures among them."""
    return [*_users(secret), *_logins(secret), *_limits(secret), *_notices(secret)]


def _users(secret: str) -> list[Case]:
    ada = _user("ada", email="ada@example.com")
    ben = _user("ben", email="ben@example.com")
    cleo = _user("cleo", email="cleo@example.com")
    dora = _user("dora", email="dora@example.com", email_verified=True)
    updated = sample_event("user.updated", object=ben)
    genuine = sample_event("user.updated", object=_user("eve", email="eve@example.com"))
    signed = sign_delivery(genuine, secret=secret)
    tampered = Delivery(signed.headers, signed.body.replace(b"eve@example.com", b"eve@example.org"))
    return [
        _genuine("user.created", ada, Page("/users/user_ada", {"email": "ada@example.com"})),
        Case(
            about="canonical JSON was signed",
            type=updated.type,
            source=Posted(updated, sign_delivery(updated, secret=secret, signed_content="canonical")),
            answer=ACCEPTED,
            kept=Kept(),
            effects=(Page("/users/user_ben", {"email": "ben@example.com"}),),
        ),
        _forged("the body was tampered with", genuine, tampered, Page("/users/user_eve", None)),
        _genuine("user.deleted", cleo, Page("/users/user_cleo", {"deleted": True})),
        _genuine("user.verified", dora, Page("/users/user_dora", {"verified": True})),
    ]


def _logins(secret: str) -> list[Case]:
    now = int(time.time())
    stale = sample_event("auth.login", object=_login("stale"))
    early = sample_event("auth.login", object=_login("early"))
    return [
        _genuine("auth.login", _login("ada"), Page("/users/user_ada/audit", [{"what": "login"}])),
        _forged(
            "the timestamp is stale",
            stale,
            sign_delivery(stale, secret=secret, timestamp=now - 600),
            Page("/users/user_stale/audit", []),
        ),
        _forged(
            "the timestamp is to come",
            early,
            sign_delivery(early, secret=secret, timestamp=now + 600),
            Page("/users/user_early/audit", []),
        ),
        _genuine("auth.logout", _login("ben"), Page("/users/user_ben/audit", [{"what": "logout"}])),
        _genuine("auth.failed", _login("cleo"), Page("/users/user_cleo/audit", [{"what": "failed"}])),
        _genuine("auth.password_reset", _login("dora"), Page("/users/user_dora/audit", [{"what": "password_reset"}])),
    ]


def _limits(secret: str) -> list[Case]:
    limit = {"id": "key_123", "limit": 1000, "used": 1000}
    guessed = sample_event("api.key_expired", object={"id": "key_mallory"})
    told_once = Calls((200,))
    return [
        _genuine("api.rate_limit_exceeded", limit, told_once),
        Case(
            about="the same event again",
            type="api.rate_limit_exceeded",
            source=SentAgain(),
            answer=DUPLICATE,
            kept=Kept(),
            effects=(told_once,),
        ),
        Case(
            about="its handler fails twice",
            type="api.quota_exceeded",
            source=Sent(limit),
            answer=ACCEPTED,
            kept=Kept(attempts=3),
            effects=(Calls((503, 503, 200), waits=(2.0, 4.0)),),
            failures=2,
        ),
        _forged("the secret is wrong", guessed, sign_delivery(guessed, secret="whsec_guessed"), Calls(())),  # noqa: S106
        _genuine("api.key_expired", {"id": "key_456"}, told_once),
    ]


def _notices(secret: str) -> list[Case]:
    unknown = sample_event("billing.invoice_paid", object={"id": "inv_1"})
    return [
        _genuine(
            "system.maintenance_start",
            {"id": "mnt_1", "title": "Databases"},
            Page("/notices/mnt_1", {"what": "maintenance_start"}),
        ),
        _genuine(
            "system.maintenance_end",
            {"id": "mnt_2", "title": "Network"},
            Page("/notices/mnt_2", {"what": "maintenance_end"}),
        ),
        _genuine(
            "system.incident",
            {"id": "inc_1", "title": "Slow answers"},
            Page("/notices/inc_1", {"what": "incident"}),
            Calls((200,)),
        ),
        Case(
            about="a type nobody handles",
            type=unknown.type,
            source=Posted(unknown, sign_delivery(unknown, secret=secret)),
            answer=ACCEPTED,
            kept=Kept(Status.IGNORED, attempts=0),
            effects=(Calls(()),),
        ),
    ]


def _genuine(type: str, object: Mapping[str, Any], *effects: Effect) -> Case:
    return Case("", type, Sent(object), ACCEPTED, Kept(), effects)


def _forged(about: str, event: Event, delivery: Delivery, *effects: Effect) -> Case:
    return Case(about, event.type, Posted(event, delivery), REFUSED, None, effects)


def _user(name: str, **more: Any) -> dict[str, Any]:
    return {"id": f"user_{name}", "name": name.capitalize(), "email_verified": False, **more}


def _login(name: str) -> dict[str, Any]:
    return {"user_id": f"user_{name}", "ip_address": "192.168.1.1"}
