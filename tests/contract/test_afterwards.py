"""After the 200: the handlers' work, which senders do not wait for."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from envoyou_core import Event, Handlers, RetryPolicy
from envoyou_core.inbox import Status
from envoyou_core.testing import Delivery, sample_event
from tests.contract.conftest import Serve
from tests.contract.endpoint import Endpoint, signed

PATIENCE = 20.0


@dataclass(frozen=True)
class Work:
    """Handlers that report their start and wait to be released, by files, as they may run in another process."""

    folder: Path

    @property
    def handlers(self) -> Handlers:
        handlers = Handlers()
        # In a transaction it would block all other writers on SQLite.
        handlers.on("user.created", atomic=False)(self.block)
        handlers.on("user.updated")(self.block_async)
        handlers.on("auth.login")(self.fail_twice)
        handlers.on("user.deleted")(self.note)
        return handlers

    def block(self, event: Event) -> None:
        (self.folder / "begun").touch()
        wait_for((self.folder / "may end").exists)
        self.note(event)

    async def block_async(self, event: Event) -> None:
        await asyncio.to_thread(self.block, event)

    def fail_twice(self, event: Event, attempt: int) -> None:
        if attempt < 3:
            raise OSError(f"attempt {attempt}")
        self.note(event)

    def note(self, event: Event) -> None:
        with (self.folder / "done").open("a") as done:
            done.write(json.dumps(event.data.object.get("name")) + "\n")

    def wait_until_begun(self) -> None:
        wait_for((self.folder / "begun").exists)

    def let_end(self) -> None:
        (self.folder / "may end").touch()

    @property
    def done(self) -> list[Any]:
        """Return the names in the events that have been handled."""
        file = self.folder / "done"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Work]:
    work = Work(tmp_path)
    yield work
    work.let_end()


@pytest.fixture
def working(serve: Serve, work: Work) -> Endpoint:
    """An endpoint with a worker."""
    return serve(work.handlers, retry=RetryPolicy(initial_delay=0.05))


def now(event: Event) -> Delivery:
    return signed(event, timestamp=None)


def wait_until(endpoint: Endpoint, delivery: Delivery, status: Status) -> None:
    deadline = time.monotonic() + PATIENCE
    while (record := endpoint.record(delivery)) is None or record.status is not status:
        assert time.monotonic() < deadline, record
        time.sleep(0.01)


@contextmanager
def still_to_be_done(work: Work) -> Iterator[None]:
    assert work.done == []
    yield
    assert work.done == []
    work.let_end()


@pytest.mark.parametrize("event_type", ["user.created", "user.updated"], ids=["sync", "async"])
def test_the_response_is_sent_before_the_handler_ends(working: Endpoint, work: Work, event_type: str) -> None:
    delivery = now(sample_event(event_type))
    with still_to_be_done(work):
        working.accepts(delivery)
        work.wait_until_begun()
        wait_until(working, delivery, Status.PROCESSING)
        working.accepts(delivery, duplicate=True)
        working.accepts(now(sample_event("system.incident")))
    wait_until(working, delivery, Status.PROCESSED)
    assert len(work.done) == 1


def test_a_blocking_handler_does_not_delay_other_events(working: Endpoint, work: Work) -> None:
    blocked, quick = now(sample_event()), now(sample_event("user.deleted"))
    working.accepts(blocked)
    work.wait_until_begun()
    working.accepts(quick)
    wait_until(working, quick, Status.PROCESSED)
    assert len(work.done) == 1
    work.let_end()
    wait_until(working, blocked, Status.PROCESSED)


def test_a_failed_handler_is_retried(working: Endpoint, work: Work) -> None:
    delivery = now(sample_event("auth.login"))
    working.accepts(delivery)
    wait_until(working, delivery, Status.PROCESSED)
    record = working.record(delivery)
    assert record is not None
    assert (record.attempts, len(work.done)) == (3, 1)


def test_an_event_without_a_handler_is_ignored(working: Endpoint) -> None:
    delivery = now(sample_event("invoice.paid"))
    working.accepts(delivery)
    wait_until(working, delivery, Status.IGNORED)


def test_without_any_handler_events_are_stored_and_one_error_is_logged(serve: Serve) -> None:
    endpoint = serve(Handlers())
    delivery = now(sample_event())
    endpoint.accepts(delivery)
    wait_for(lambda: "no handler is registered for default" in endpoint.log)
    assert endpoint.accepts(delivery, duplicate=True).status is Status.RECEIVED
    # A server in processes of its own may have several, each with its line.
    if endpoint.served.output is None:
        assert endpoint.log.count("no handler is registered") == 1


@pytest.mark.policy
@pytest.mark.parametrize("form", ["half a surrogate pair \ud83d", "NUL \0", "😀"])
def test_unusual_text_reaches_the_handler(working: Endpoint, work: Work, form: str) -> None:
    delivery = now(sample_event("user.deleted", object={"name": form}))
    working.accepts(delivery)
    wait_until(working, delivery, Status.PROCESSED)
    assert work.done == [form]
