"""What an inbox does with a row that this release cannot read."""

from datetime import timedelta

import pytest

from envoyou_core import InvalidPayloadError
from envoyou_core.inbox import Added, HandlerStatus, Settlement, Status
from tests.inbox.acts import DONE, LEASE, ORDERED, add, add_about, add_settled, claim_one, entry, ids, settle, status_of

OTHER_ID = entry("evt_other").event.body
OTHER_TYPE = entry("evt_2", "user.deleted").event.body
OF_A_NEWER_RELEASE = '{"welcome": "done", "bill": "postponed"}'

DAMAGES = [
    ("body", b"{{"),
    ("body", b""),
    ("body", b"\xff\xfe"),
    ("body", b"[]"),
    ("body", b'{"id": "evt_2", "type": "user.created", "created": 1, "data": {}}'),
    ("body", OTHER_ID),
    ("body", OTHER_TYPE),
    ("progress", '["welcome"]'),
    ("progress", '"done"'),
    ("progress", "null"),
    ("progress", OF_A_NEWER_RELEASE),
]


class UnreadableContract:
    """For an inbox that keeps rows in a database.

    A subclass gives the fixtures `damage(id, column, value)`, which overwrites a column of an event's row, and
    `stored(id, column)`, which reads one as text.
    """

    @pytest.mark.parametrize(("column", "value"), DAMAGES)
    def test_an_unreadable_row_disturbs_no_other(self, inbox, damage, column, value):
        for number in range(1, 4):
            add(inbox, f"evt_{number}")
        damage("evt_2", column, value)
        claims = inbox.claim(10, LEASE)
        assert ids(claims) == ["evt_1", "evt_2", "evt_3"]
        assert [claim.unreadable is None for claim in claims] == [True, False, True]
        assert claims[1].event.type == "user.created"
        records = inbox.list()
        assert ids(records) == ["evt_3", "evt_2", "evt_1"]
        assert [record.unreadable is None for record in records] == [True, False, True]
        assert inbox.get("evt_2") == records[1]
        assert records[1].unreadable == claims[1].unreadable
        assert inbox.stats().by_status[Status.PROCESSING] == 3
        assert (
            inbox.settle_all(
                [(claim, settlement(Status.FAILED if claim.unreadable else Status.PROCESSED)) for claim in claims]
            )
            == [True] * 3
        )
        assert (status_of(inbox, "evt_1"), status_of(inbox, "evt_2")) == (Status.PROCESSED, Status.FAILED)

    def test_the_event_of_an_unreadable_body_is_known_by_its_columns(self, inbox, damage):
        add(inbox, "evt_1")
        damage("evt_1", "body", b"{{")
        event = inbox.get("evt_1").event
        assert (event.id, event.type, event.body) == ("evt_1", "user.created", b"{{")
        assert event.created == entry().event.created
        assert event.object_id is None
        with pytest.raises(InvalidPayloadError, match="unreadable"):
            event.data.object  # noqa: B018

    def test_an_event_is_readable_again_once_its_row_is_repaired(self, inbox, damage, clock):
        add(inbox, "evt_1")
        damage("evt_1", "body", b"{{")
        claim = claim_one(inbox)
        settle(inbox, claim, Status.DEAD, attempts=3, error="unreadable")
        assert inbox.requeue("evt_1") == 1
        assert claim_one(inbox, lease=1).unreadable
        damage("evt_1", "body", entry("evt_1").event.body)
        clock.advance(2)
        claim = claim_one(inbox)
        assert (claim.unreadable, claim.event, claim.crashes) == (None, entry("evt_1").event, 1)

    @pytest.mark.parametrize("ending", ["settle", "settle_all", "requeue", "redelivery"])
    def test_what_a_newer_release_has_recorded_is_kept(self, inbox, damage, stored, ending):
        add(inbox, "evt_1")
        damage("evt_1", "progress", OF_A_NEWER_RELEASE)
        claim = claim_one(inbox)
        if ending == "settle_all":
            assert inbox.settle_all([(claim, settlement(Status.FAILED, retry_in=5.0))]) == [True]
        else:
            settle(inbox, claim, Status.DEAD)
        if ending == "requeue":
            assert inbox.requeue("evt_1") == 1
        if ending == "redelivery":
            assert add(inbox, "evt_1") is Added.REARMED
        assert "postponed" in stored("evt_1", "progress")
        damage("evt_1", "progress", '{"welcome": "done"}')
        assert inbox.get("evt_1").progress == {"welcome": HandlerStatus.DONE}

    def test_a_redelivery_beside_an_unreadable_row_is_a_duplicate(self, inbox, damage):
        add(inbox, "evt_1")
        damage("evt_1", "body", b"{{")
        assert add(inbox, "evt_1") is Added.BODY_DIFFERS
        assert add(inbox, "evt_2") is Added.NEW

    def test_an_unreadable_history_counts_as_empty(self, inbox, damage):
        add_settled(inbox, "evt_1", Status.FAILED, retry_in=0.0, seconds=1.0)
        damage("evt_1", "history", "[[")
        assert (inbox.get("evt_1").history, inbox.get("evt_1").unreadable) == ((), None)
        claim = claim_one(inbox)
        assert settle(inbox, claim, Status.PROCESSED, progress=DONE, seconds=1.0)
        assert len(inbox.get("evt_1").history) == 1

    @pytest.mark.parametrize(("status", "shown"), [(Status.PROCESSED, Status.DEAD), (Status.FAILED, Status.FAILED)])
    def test_a_status_that_this_release_does_not_know(self, inbox, damage, status, shown):
        add_settled(inbox, "evt_1", status, retry_in=100.0 if status is Status.FAILED else None)
        damage("evt_1", "status", "postponed")
        record = inbox.get("evt_1")
        assert record.status is shown
        assert "status" in record.unreadable
        assert ids(inbox.list()) == ["evt_1"]
        assert inbox.stats().total == inbox.stats(exact=True).total == 0

    def test_an_unreadable_event_holds_back_those_behind_it(self, inbox, damage):
        add_about(inbox, "usr_1", "evt_1")
        add_about(inbox, "usr_1", "evt_2", later=1)
        add_about(inbox, "usr_2", "evt_3")
        damage("evt_1", "body", b"{{")
        claims = inbox.claim(10, LEASE, ORDERED)
        assert ids(claims) == ["evt_1", "evt_3"]
        assert settle(inbox, claims[0], Status.FAILED, retry_in=5.0)
        assert inbox.claim(10, LEASE, ORDERED) == []
        assert inbox.newest_applied(claims[1]) is None

    @pytest.mark.parametrize("column", ["body", "progress"])
    def test_unreadable_rows_are_scrubbed_erased_and_pruned(self, inbox, damage, clock, column):
        value = b"private@example.com" if column == "body" else '["welcome"]'
        for number in range(1, 4):
            add_about(inbox, f"usr_{number}", f"evt_{number}")
            damage(f"evt_{number}", column, value)
        claims = inbox.claim(10, LEASE)
        assert inbox.erase("usr_1") == 1
        assert inbox.settle_all([(claim, settlement(Status.DEAD, scrub=claim is claims[1])) for claim in claims])
        clock.advance(10)
        assert inbox.scrub(timedelta(seconds=1), (Status.DEAD,)) == 1
        for number in range(1, 4):
            record = inbox.get(f"evt_{number}")
            assert record.scrubbed_at is not None
            assert b"private@example.com" not in record.event.body
        assert inbox.prune(timedelta(seconds=1), (Status.DEAD,)) == 3


def settlement(status, **values):
    return Settlement(status, 1, **values)
