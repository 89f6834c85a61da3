"""What comes after the 200: the handlers' work, which no sender waits for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from envoyou_core import Event, Handlers, RetryPolicy
from envoyou_core.inbox import Status
from envoyou_core.testing import Delivery, sample_event
from tests.contract.conftest import Serve
from tests.contract.endpoint import Endpoint, signed

PATIENCE = 10.0


class Work:
    """Handlers that tell when they have begun, and end when they may."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.done: list[str] = []
        self.handlers = Handlers()
        self.handlers.on("user.created")(self.block)
        self.handlers.on("user.updated")(self.block_async)
        self.handlers.on("auth.login")(self.fail_twice)
        self.handlers.on("user.deleted")(self.note)

    def block(self, event: Event) -> None:
        self.begun.set()
        assert self.may_end.wait(PATIENCE)
        self.done.append(event.id)

    async def block_async(self, event: Event) -> None:
        self.begun.set()
        assert await asyncio.to_thread(self.may_end.wait, PATIENCE)
        self.done.append(event.id)

    def fail_twice(self, event: Event, attempt: int) -> None:
        if attempt < 3:
            raise OSError(f"attempt {attempt}")
        self.done.append(event.id)

    def note(self, event: Event) -> None:
        self.done.append(event.id)


@pytest.fixture
def work() -> Iterator[Work]:
    work = Work()
    yield work
    work.may_end.set()


@pytest.fixture
def working(serve: Serve, work: Work) -> Endpoint:
    """An endpoint with a worker of its own."""
    return serve(work.handlers, retry=RetryPolicy(initial_delay=0.05))


def now(event: Event) -> Delivery:
    return signed(event, timestamp=None)


def wait_for(endpoint: Endpoint, delivery: Delivery, status: Status) -> None:
    deadline = time.monotonic() + PATIENCE
    while (record := endpoint.record(delivery)) is None or record.status is not status:
        assert time.monotonic() < deadline, record
        time.sleep(0.01)


@contextmanager
def still_to_be_done(work: Work) -> Iterator[None]:
    assert work.done == []
    yield
    assert work.done == []
    work.may_end.set()


@pytest.mark.parametrize("event_type", ["user.created", "user.updated"], ids=["sync", "async"])
def test_the_answer_comes_before_the_handler_ends(working: Endpoint, work: Work, event_type: str) -> None:
    delivery = now(sample_event(event_type))
    with still_to_be_done(work):
        working.accepts(delivery)
        assert work.begun.wait(PATIENCE)
        wait_for(working, delivery, Status.PROCESSING)
        working.accepts(delivery, duplicate=True)
        working.accepts(now(sample_event("system.incident")))
    wait_for(working, delivery, Status.PROCESSED)
    assert len(work.done) == 1


def test_a_handler_that_blocks_holds_up_no_other_event(working: Endpoint, work: Work) -> None:
    blocked, quick = now(sample_event()), now(sample_event("user.deleted"))
    working.accepts(blocked)
    assert work.begun.wait(PATIENCE)
    working.accepts(quick)
    wait_for(working, quick, Status.PROCESSED)
    assert len(work.done) == 1
    work.may_end.set()
    wait_for(working, blocked, Status.PROCESSED)


def test_a_handler_that_fails_is_tried_again(working: Endpoint, work: Work) -> None:
    delivery = now(sample_event("auth.login"))
    working.accepts(delivery)
    wait_for(working, delivery, Status.PROCESSED)
    record = working.record(delivery)
    assert record is not None
    assert (record.attempts, len(work.done)) == (3, 1)


def test_a_type_that_nobody_handles_is_ignored(working: Endpoint) -> None:
    delivery = now(sample_event("invoice.paid"))
    working.accepts(delivery)
    wait_for(working, delivery, Status.IGNORED)


@pytest.mark.parametrize("form", ["half a surrogate pair \ud83d", "NUL \0", "😀"])
def test_unusual_text_reaches_the_handler(serve: Serve, form: str) -> None:
    names: list[str] = []
    handlers = Handlers()

    @handlers.on("*")
    def keep(event: Event) -> None:
        names.append(event.data.object["name"])

    endpoint = serve(handlers)
    delivery = now(sample_event(object={"name": form}))
    endpoint.accepts(delivery)
    wait_for(endpoint, delivery, Status.PROCESSED)
    assert names == [form]
