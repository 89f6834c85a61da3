"""The clock of the machine jumps by an hour, back or forward, while a worker handles events."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, text

from envoyou_core import Event, WebhookRequest, Webhooks
from envoyou_core.inbox import NewEvent, Status
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.testing import sample_event, sign_delivery
from tests.servers.processes import SECRET, wait_for

pytestmark = pytest.mark.slow

HOUR = 3600.0
LEASE = 15.0
"""Seconds: much less than the jump, and enough for a busy machine on which a live worker is slow."""


class Clock:
    """A clock that can be set."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Shop:
    """Webhooks with a plain handler, a transactional one, a slow one, and one that fails at the first attempt."""

    def __init__(self, url: str, clock: Clock) -> None:
        self.clock = clock
        self.url = url
        self.webhooks = Webhooks(secret=SECRET, inbox=url, clock=clock, lease=LEASE)
        self.inbox = SqlInbox(url, clock=clock)
        self.runs: collections.Counter[str] = collections.Counter()
        self.slow_runs = 0
        self.in_flight = threading.Event()
        self.may_end = threading.Event()
        self.inbox.migrate()
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE effects (event_id VARCHAR(255))"))
        engine.dispose()

        @self.webhooks.on("user.*", name="plain")
        def plain(event: Event) -> None:
            self.runs[event.id] += 1

        @self.webhooks.on("user.*", name="transactional")
        def transactional(event: Event, connection: Connection) -> None:
            connection.execute(text("INSERT INTO effects (event_id) VALUES (:id)"), {"id": event.id})

        @self.webhooks.on("user.verified", name="slow")
        def slow(event: Event) -> None:
            self.slow_runs += 1
            self.in_flight.set()
            assert self.may_end.wait(30)

        @self.webhooks.on("user.deleted", name="fails at first")
        def fails_at_first(event: Event, attempt: int) -> None:
            if attempt == 1:
                raise RuntimeError("not yet")

    def deliver(self, event: Event) -> None:
        delivery = sign_delivery(event, secret=SECRET, timestamp=int(self.clock()))
        answer = self.webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
        assert answer.status == 200

    def status(self, event: Event) -> Status:
        record = self.inbox.get(event.id)
        assert record is not None
        return record.status

    def effects(self) -> collections.Counter[str]:
        engine = create_engine(self.url)
        try:
            with engine.connect() as connection:
                return collections.Counter(connection.scalars(text("SELECT event_id FROM effects")))
        finally:
            engine.dispose()


@pytest.fixture
def shop(inbox_url: str, clock: Clock, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(inbox_url, clock)
    try:
        yield shop
    finally:
        shop.may_end.set()
        shop.webhooks.stop(timeout=5)
        shop.webhooks.inbox.close()
        shop.inbox.close()


@pytest.mark.parametrize("jump", [-HOUR, HOUR], ids=["back", "forward"])
def test_the_clock_jumps(jump: float, shop: Shop, clock: Clock) -> None:
    held, failed = sample_event("user.verified"), sample_event("user.deleted")
    waiting = [sample_event("user.created") for _ in range(20)]
    later = [sample_event("user.updated") for _ in range(20)]
    shop.deliver(held)
    assert shop.in_flight.wait(30)
    shop.deliver(failed)
    wait_for(lambda: shop.status(failed) is Status.FAILED)
    for event in waiting:
        # Stored as by another process, at the moment of the jump.
        shop.inbox.add(NewEvent(event)).result(30)
    clock.ahead += jump
    for event in later:
        shop.deliver(event)
    done(shop, later)
    before_the_jump = [failed, *waiting]
    behind = 0
    if jump < 0:
        # Events that were due by the old clock may become due only when the hour has passed.
        behind = sum(shop.status(event) is not Status.PROCESSED for event in before_the_jump)
        clock.ahead = 0.0
    done(shop, before_the_jump)
    assert shop.status(held) is Status.PROCESSING
    shop.may_end.set()
    wait_for(lambda: shop.status(held) is Status.PROCESSED)
    everything = [held, failed, *waiting, *later]
    repeated = sum(shop.runs.values()) - len(everything)
    doubled = sum(shop.effects().values()) - len(shop.effects())
    print(f"\n{jump:+.0f} s: {len(everything)} done, {behind} only when the clock had caught up, {doubled} doubled,")
    print(f"{repeated} plain handler runs repeated, {shop.slow_runs} runs of the slow handler")
    assert shop.runs.keys() == shop.effects().keys() == {event.id for event in everything}
    assert doubled == 0
    assert repeated == 0
    # By a clock that jumped forward, its lease has expired.
    assert shop.slow_runs <= (2 if jump > 0 else 1)


def done(shop: Shop, events: list[Event]) -> None:
    wait_for(
        lambda: all(shop.status(event) is Status.PROCESSED for event in events),
        lambda: collections.Counter((event.type, shop.status(event)) for event in events),
    )
