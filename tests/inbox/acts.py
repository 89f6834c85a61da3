"""What the tests of the inbox contract do with an inbox, and the clock that they set by hand."""

from __future__ import annotations

from datetime import UTC, datetime

from envoyou_core.inbox import Added, Claim, ClaimFilter, HandlerStatus, Inbox, NewEvent, Settlement, Status
from envoyou_core.testing import sample_event

LEASE = 60.0
PATIENCE = 20.0
"""Seconds in which a future must have its result."""

CREATED = 1_640_995_200
"""When events were created, where a test does not say."""

ANY = ClaimFilter()
ORDERED = ClaimFilter(ordered=("*",))

DONE = {"welcome": HandlerStatus.DONE}
MIXED = {"welcome": HandlerStatus.DONE, "bill": HandlerStatus.GIVEN_UP}


class HandClock:
    """Epoch seconds that pass only when a test says so."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def moment(self, later: float = 0.0) -> datetime:
        return datetime.fromtimestamp(self.now + later, UTC)


def entry(
    id: str = "evt_1", type: str = "user.created", *, tenant: str = "", webhook_id: str | None = None
) -> NewEvent:
    return NewEvent(sample_event(type, id=id, created=CREATED), tenant, webhook_id)


def add(inbox: Inbox, id: str = "evt_1", type: str = "user.created", *, tenant: str = "") -> Added:
    return inbox.add(entry(id, type, tenant=tenant)).result(PATIENCE)


def add_about(
    inbox: Inbox,
    object_id: object,
    id: str,
    *,
    type: str = "user.updated",
    later: int = 0,
    tenant: str = "",
    object: dict | None = None,
) -> Added:
    """Add an event about an object, created `later` seconds than others; its payload is private."""
    payload = {"id": object_id, "email": "private@example.com"} if object is None else object
    event = sample_event(type, id=id, created=CREATED + later, object=payload)
    return inbox.add(NewEvent(event, tenant)).result(PATIENCE)


def claim_one(inbox: Inbox, lease: float = LEASE, selection: ClaimFilter = ANY) -> Claim:
    claims = inbox.claim(1, lease, selection)
    assert len(claims) == 1
    return claims[0]


def settle(inbox: Inbox, claim: Claim, status: Status = Status.PROCESSED, **values: object) -> bool:
    return inbox.settle(claim, Settlement(status, **{"attempts": claim.attempts + 1, **values}))


def add_settled(inbox: Inbox, id: str, status: Status, type: str = "user.created", **values: object) -> None:
    """Bring an event that nobody else holds into `status`; nothing else may be due."""
    assert add(inbox, id, type) is Added.NEW
    claim = claim_one(inbox)
    assert claim.event.id == id
    assert settle(inbox, claim, status, **values)


def status_of(inbox: Inbox, id: str, tenant: str | None = None) -> Status:
    record = inbox.get(id, tenant=tenant)
    assert record is not None
    return record.status


def ids(found: list) -> list[str]:
    return [one.event.id for one in found]
