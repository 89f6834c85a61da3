"""What handlers may rely on over every inbox: the stored event, its attempts, and what is recorded of each handler.

How a handler gets its type, its contexts and what it asks for is the same over all inboxes, and is tested in
`tests/core`. Here is what passes through the inbox: the body, the number of the attempt, the time of the next one, the
progress of each handler, and the transaction that a handler's surroundings share with it.

A subclass gives the fixtures `inbox` and `clock`, as `InboxContract` has them.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from envoyou_core import Event, RetryPolicy, Webhooks
from envoyou_core.inbox import HandlerStatus, NewEvent, Status
from envoyou_core.testing import sample_event
from tests.inbox.acts import CREATED, PATIENCE


@dataclass
class Customer:
    id: str
    name: str
    balance: int


CUSTOMER = {"id": "customer_1", "name": "Zo\u00eb \u0000 \U0001f600", "balance": 2**63}


def accept(webhooks, **values):
    event = sample_event("user.created", **{"id": "evt_1", "created": CREATED, "object": CUSTOMER, **values})
    webhooks.inbox.add(NewEvent(event)).result(PATIENCE)


def drain(webhooks):
    # Not until it is idle: that would wait for the retries.
    webhooks.drain(until_idle=False)
    return webhooks.inbox.get("evt_1")


class HandlerContract:
    """For every inbox."""

    webhooks_class = Webhooks

    @pytest.fixture
    def webhooks(self, inbox, clock):
        retry = RetryPolicy(max_attempts=3, delays=[10])
        return self.webhooks_class(
            secret="whsec_test", inbox=inbox, handoff="manual", clock=clock, retry=retry, analytics=False
        )

    def test_a_handler_gets_its_type_from_the_stored_body(self, webhooks):
        seen = []

        @webhooks.on("user.created", name="keep")
        def keep(event: Event[Customer]):
            seen.append(event.data.object)

        accept(webhooks)
        accept(webhooks, id="evt_2", object={**CUSTOMER, "balance": "much"})
        assert drain(webhooks).status is Status.PROCESSED
        assert seen == [Customer(**CUSTOMER)]
        record = webhooks.inbox.get("evt_2")
        assert record.status is Status.FAILED
        assert "$.balance" in record.last_error
        assert "much" not in record.last_error + record.history[0].failures[0].traceback

    def test_a_context_around_a_handler_sees_the_stored_event_and_its_attempts(self, webhooks, clock):
        seen = []

        @webhooks.around_handler
        @contextmanager
        def context(event, handler, attempt):
            seen.append((event.id, handler, attempt))
            if attempt == 1:
                raise OSError("no such tenant")
            yield

        webhooks.on("user.created", name="keep")(lambda event: seen.append("kept"))
        accept(webhooks)
        record = drain(webhooks)
        assert (record.status, record.last_error) == (Status.FAILED, "OSError: no such tenant")
        clock.advance(10)
        assert drain(webhooks).status is Status.PROCESSED
        assert seen == [("evt_1", "keep", 1), ("evt_1", "keep", 2), "kept"]

    def test_each_handlers_policy_decides_what_is_recorded_of_it(self, webhooks, clock):
        calls = []
        for name, retry in (
            ("once", RetryPolicy(max_attempts=1)),
            ("often", RetryPolicy(max_attempts=2, delays=[30])),
        ):

            def fail(event, attempt, name=name):
                calls.append((name, attempt))
                raise ValueError(name)

            webhooks.on("user.created", name=name, retry=retry)(fail)
        accept(webhooks)
        record = drain(webhooks)
        assert (record.status, record.next_attempt_at) == (Status.FAILED, clock.moment(30))
        assert record.progress["once"] is HandlerStatus.GIVEN_UP
        clock.advance(30)
        record = drain(webhooks)
        assert (record.status, record.attempts) == (Status.DEAD, 2)
        assert set(record.progress.values()) == {HandlerStatus.GIVEN_UP}
        assert calls == [("once", 1), ("often", 1), ("often", 2)]


class HandlerTransactionContract(HandlerContract):
    """For every inbox whose transactions handlers share.

    A subclass gives the fixtures of `TransactionContract`, and `takes_connection`.
    """

    takes_connection = True
    """Whether the handler writes through a parameter `connection`."""

    @pytest.mark.parametrize("fails", ["provider", "context"])
    def test_what_surrounds_a_handler_fails_before_the_commit_of_its_work(self, webhooks, clock, write, written, fails):
        broken = [fails]

        @webhooks.around_handler
        @contextmanager
        def context(event, handler, attempt):
            yield
            if broken == ["context"]:
                raise OSError("cannot leave")

        def shop():
            yield "shop"
            if broken == ["provider"]:
                raise OSError("cannot close")

        webhooks.provide("shop", shop)
        if self.takes_connection:
            webhooks.on("user.created", name="keep")(lambda event, shop, connection: write(connection, shop))
        else:
            webhooks.on("user.created", name="keep")(lambda event, shop: write(None, shop))
        accept(webhooks)
        assert drain(webhooks).status is Status.FAILED
        assert written() == []
        broken.clear()
        clock.advance(10)
        assert drain(webhooks).status is Status.PROCESSED
        assert written() == ["shop"]
