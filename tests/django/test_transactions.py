"""Changes of several rows: all or none, and in an order that avoids deadlocks."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import transaction

from envoyou_core.inbox import NewEvent, Settlement, Status
from envoyou_core.testing import sample_event
from envoyou_django.inbox import bulk
from envoyou_django.inbox.commits import own_transaction
from envoyou_django.inbox.inbox import OrmInbox
from tests.django.databases import empty, in_a_thread, inbox_on, wait_until_locked

LEASE = 60.0


@pytest.fixture
def server_inbox(server_alias, clock, django_db_blocker):
    with django_db_blocker.unblock(), inbox_on(server_alias):
        yield OrmInbox(clock=clock)
        empty(server_alias)


def claim_new(inbox, count):
    for number in range(count):
        inbox.add(NewEvent(sample_event(id=f"evt_{number}", object={"id": "usr_1"}))).result()
    return inbox.claim(count, LEASE)


def processed(claims):
    return [(claim, Settlement(Status.PROCESSED, 1)) for claim in claims]


def test_several_claims_are_settled_together_or_not_at_all(inbox_alias, clock):
    inbox = OrmInbox(clock=clock)
    first, second = claim_new(inbox, 2)
    unstorable = Settlement(Status.PROCESSED, 1, progress={"welcome": object()})
    with pytest.raises(TypeError):
        inbox.settle_all([(first, Settlement(Status.PROCESSED, 1)), (second, unstorable)])
    assert inbox.stats().by_status[Status.PROCESSING] == 2
    assert inbox.settle_all(processed([first, second])) == [True, True]


@pytest.mark.parametrize(
    "change",
    [
        lambda inbox, claims: inbox.settle_all(processed(reversed(claims))),
        lambda inbox, claims: inbox.renew(list(reversed(claims)), LEASE),
        lambda inbox, claims: inbox.erase("usr_1"),
    ],
    ids=["settle_all", "renew", "erase"],
)
def test_rows_are_locked_in_the_order_of_their_keys(server_alias, server_inbox, change):
    claims = claim_new(server_inbox, 2)
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic(using=server_alias):
            server_inbox._rows.select_for_update().get(pk=claims[0].key)
            other = in_a_thread(pool, lambda: change(server_inbox, claims))
            wait_until_locked(server_alias, other)
            # Raises an error if the row is locked.
            assert server_inbox._rows.select_for_update(nowait=True).get(pk=claims[1].key).event_id == "evt_1"
        assert other.result(20) != []


def test_an_event_scrubbed_during_its_requeue_is_not_requeued(inbox_alias, clock, monkeypatch):
    inbox = OrmInbox(clock=clock)
    (claim,) = claim_new(inbox, 1)
    inbox.settle(claim, Settlement(Status.DEAD, 1))

    def erase_first(alias):
        inbox.erase("usr_1")
        return own_transaction(alias)

    monkeypatch.setattr(bulk, "own_transaction", erase_first)
    assert inbox.requeue("evt_0") == 0
    assert inbox.get("evt_0").status is Status.DEAD
