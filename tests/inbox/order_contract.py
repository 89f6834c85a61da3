"""In which order the events about one object are worked on, and how new the newest was that had an effect."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest

from envoyou_core.inbox import ClaimFilter, HandlerStatus, Status
from tests.inbox.acts import (
    CREATED,
    DONE,
    LEASE,
    ORDERED,
    add_about,
    add_settled,
    claim_one,
    ids,
    settle,
    status_of,
)

FINISHED = [Status.PROCESSED, Status.IGNORED, Status.DEAD]


def take(inbox, limit=10, lease=LEASE, claim_filter=ORDERED):
    return inbox.claim(limit, lease, claim_filter)


def take_one(inbox, lease=LEASE, claim_filter=ORDERED):
    return claim_one(inbox, lease, claim_filter)


class OrderContract:
    """For every inbox. See `InboxContract`."""

    def test_events_of_one_object_come_one_after_the_other(self, inbox):
        for number in range(4):
            add_about(inbox, "user_1", f"evt_{number}", later=number)
        for number in range(4):
            (claim,) = take(inbox)
            assert claim.event.id == f"evt_{number}"
            assert take(inbox) == []
            assert settle(inbox, claim)
        assert take(inbox) == []

    def test_events_of_other_objects_do_not_wait(self, inbox):
        for number in range(6):
            add_about(inbox, f"user_{number % 3}", f"evt_{number}", later=number)
        first = take(inbox)
        assert ids(first) == ["evt_0", "evt_1", "evt_2"]
        assert take(inbox) == []
        settle(inbox, first[1])
        assert ids(take(inbox)) == ["evt_4"]

    def test_what_is_held_takes_no_place_among_those_that_are_claimed(self, inbox):
        for number in range(30):
            add_about(inbox, "user_1", f"evt_{number}")
        add_about(inbox, "user_2", "evt_other")
        assert ids(take(inbox, 2)) == ["evt_0", "evt_other"]

    @pytest.mark.parametrize("limit", [1, 2, 3])
    def test_no_more_than_was_asked_for(self, inbox, limit):
        for number in range(8):
            add_about(inbox, f"user_{number % 4}", f"evt_{number}")
        assert ids(take(inbox, limit)) == ["evt_0", "evt_1", "evt_2"][:limit]
        assert inbox.stats().by_status[Status.PROCESSING] == limit

    def test_a_failed_event_holds_those_behind_it_until_it_is_finished(self, inbox, clock):
        add_about(inbox, "user_1", "evt_first")
        add_about(inbox, "user_1", "evt_second")
        settle(inbox, take_one(inbox), Status.FAILED, retry_in=30.0)
        assert take(inbox) == []
        clock.advance(29.999)
        assert take(inbox) == []
        clock.advance(0.001)
        retried = take_one(inbox)
        assert retried.event.id == "evt_first"
        settle(inbox, retried, Status.FAILED, retry_in=0.0)
        (again,) = take(inbox)
        assert again.event.id == "evt_first"
        settle(inbox, again)
        assert ids(take(inbox)) == ["evt_second"]

    @pytest.mark.parametrize("status", FINISHED)
    def test_a_finished_event_lets_those_behind_it_pass(self, inbox, status):
        add_about(inbox, "user_1", "evt_first")
        add_about(inbox, "user_1", "evt_second")
        settle(inbox, take_one(inbox), status)
        assert ids(take(inbox)) == ["evt_second"]

    def test_what_was_created_first_comes_first_whenever_it_arrived(self, inbox):
        for later in (2, 0, 3, 1):
            add_about(inbox, "user_1", f"evt_{later}", later=later)
        for later in range(4):
            (claim,) = take(inbox)
            assert claim.event.id == f"evt_{later}"
            settle(inbox, claim)

    def test_within_a_second_what_arrived_first_comes_first(self, inbox):
        for id in ("evt_z", "evt_a", "evt_m"):
            add_about(inbox, "user_1", id)
        for id in ("evt_z", "evt_a", "evt_m"):
            (claim,) = take(inbox)
            assert claim.event.id == id
            settle(inbox, claim)

    def test_an_older_event_that_arrives_late_waits_for_a_newer_one_in_work(self, inbox):
        add_about(inbox, "user_1", "evt_newer", later=10)
        newer = take_one(inbox)
        add_about(inbox, "user_1", "evt_older", later=5)
        add_about(inbox, "user_1", "evt_newest", later=15)
        assert take(inbox) == []
        settle(inbox, newer)
        (older,) = take(inbox)
        assert older.event.id == "evt_older"
        settle(inbox, older)
        assert ids(take(inbox)) == ["evt_newest"]

    def test_an_older_event_that_arrives_late_goes_before_a_newer_one_that_has_failed(self, inbox, clock):
        add_about(inbox, "user_1", "evt_newer", later=10)
        newer = take_one(inbox)
        add_about(inbox, "user_1", "evt_older", later=5)
        settle(inbox, newer, Status.FAILED, retry_in=1.0)
        older = take_one(inbox)
        assert older.event.id == "evt_older"
        clock.advance(5)
        assert take(inbox) == []
        settle(inbox, older)
        assert ids(take(inbox)) == ["evt_newer"]

    def test_an_older_event_that_arrives_late_waits_for_as_long_as_the_newer_ones_lease_is_renewed(self, inbox, clock):
        add_about(inbox, "user_1", "evt_newer", later=10)
        newer = take_one(inbox)
        add_about(inbox, "user_1", "evt_older")
        clock.advance(LEASE - 1)
        inbox.renew([newer], LEASE)
        clock.advance(LEASE - 1)
        assert take(inbox) == []
        clock.advance(1)
        assert ids(take(inbox)) == ["evt_older"]

    def test_leases_that_run_out_hold_nothing(self, inbox, clock):
        """The holder of the newer one has died; the older one goes first, and then the newer one again."""
        add_about(inbox, "user_1", "evt_newer", later=10)
        take_one(inbox)
        add_about(inbox, "user_1", "evt_older")
        clock.advance(LEASE)
        older = take_one(inbox)
        assert older.event.id == "evt_older"
        assert take(inbox) == []
        settle(inbox, older)
        (newer,) = take(inbox)
        assert (newer.event.id, newer.crashes) == ("evt_newer", 1)

    def test_an_event_whose_holder_died_goes_before_those_behind_it(self, inbox, clock):
        add_about(inbox, "user_1", "evt_first")
        add_about(inbox, "user_1", "evt_second")
        take_one(inbox)
        clock.advance(LEASE - 0.001)
        assert take(inbox) == []
        clock.advance(0.001)
        (again,) = take(inbox)
        assert (again.event.id, again.crashes) == ("evt_first", 1)
        assert take(inbox) == []

    def test_when_all_leases_have_run_out_the_first_goes_first(self, inbox, clock):
        """Several of one object are in work at once where they were claimed in any order."""
        for number in range(3):
            add_about(inbox, "user_1", f"evt_{number}", later=number)
        assert len(inbox.claim(10, LEASE)) == 3
        assert take(inbox) == []
        clock.advance(LEASE)
        for number in range(3):
            (claim,) = take(inbox)
            assert (claim.event.id, claim.crashes) == (f"evt_{number}", 1)
            assert take(inbox) == []
            settle(inbox, claim)

    def test_one_lease_that_holds_is_enough_to_hold_all(self, inbox, clock):
        for number in range(3):
            add_about(inbox, "user_1", f"evt_{number}", later=number)
        claims = inbox.claim(10, LEASE)
        clock.advance(LEASE - 1)
        inbox.renew([claims[1]], LEASE)
        clock.advance(1)
        assert take(inbox) == []
        settle(inbox, claims[1])
        assert ids(take(inbox)) == ["evt_0"]

    def test_a_claim_given_back_keeps_its_turn(self, inbox, clock):
        add_about(inbox, "user_1", "evt_first")
        add_about(inbox, "user_1", "evt_second")
        claim = take_one(inbox)
        clock.advance(5)
        settle(inbox, claim, Status.RECEIVED, attempts=0, retry_in=0.0)
        assert ids(take(inbox)) == ["evt_first"]

    def test_a_requeued_event_goes_before_newer_ones_that_wait(self, inbox, clock):
        add_about(inbox, "user_1", "evt_old")
        settle(inbox, take_one(inbox), Status.DEAD)
        add_about(inbox, "user_1", "evt_new", later=5)
        add_about(inbox, "user_1", "evt_newer", later=6)
        clock.advance(5)
        assert inbox.requeue("evt_old") == 1
        for id in ("evt_old", "evt_new", "evt_newer"):
            (claim,) = take(inbox)
            assert claim.event.id == id
            settle(inbox, claim)

    def test_a_requeued_event_waits_for_a_newer_one_in_work(self, inbox):
        add_about(inbox, "user_1", "evt_old")
        settle(inbox, take_one(inbox), Status.DEAD)
        add_about(inbox, "user_1", "evt_new", later=5)
        newer = take_one(inbox)
        assert inbox.requeue("evt_old") == 1
        assert take(inbox) == []
        settle(inbox, newer)
        assert ids(take(inbox)) == ["evt_old"]

    def test_a_dead_event_that_is_delivered_again_goes_before_newer_ones_that_wait(self, inbox, clock):
        add_about(inbox, "user_1", "evt_old")
        settle(inbox, take_one(inbox), Status.DEAD)
        add_about(inbox, "user_1", "evt_new", later=5)
        clock.advance(5)
        add_about(inbox, "user_1", "evt_old")
        assert ids(take(inbox)) == ["evt_old"]

    # What is one object

    def test_objects_of_other_tenants_are_others(self, inbox):
        for tenant in ("", "acme", "Acme"):
            add_about(inbox, "user_1", "evt_1", tenant=tenant)
            add_about(inbox, "user_1", "evt_2", tenant=tenant)
        assert [(claim.tenant, claim.event.id) for claim in take(inbox)] == [
            ("", "evt_1"),
            ("acme", "evt_1"),
            ("Acme", "evt_1"),
        ]

    @pytest.mark.parametrize(
        "others",
        [
            ("user_1", "USER_1", "user_1 ", " user_1"),
            ("\u00e9", "e\u0301", "e", "\u00c9"),
            ("user_%", "user__", "user_1"),
            ("5", "05", "5.0"),
            ("x" * 255, "x" * 254, "x" * 256, "x" * 257, "x" * 300),
            ("a\nb", "a b", "ab"),
        ],
        ids=["case-and-space", "accent", "wildcard", "number", "long", "control"],
    )
    def test_objects_are_told_apart_by_the_bytes_of_their_ids(self, inbox, others):
        for number, object_id in enumerate(others):
            add_about(inbox, object_id, f"evt_{number}")
            add_about(inbox, object_id, f"evt_{number}_behind")
        assert ids(take(inbox)) == [f"evt_{number}" for number in range(len(others))]

    def test_a_number_and_its_text_are_one_id(self, inbox):
        add_about(inbox, 5, "evt_1")
        add_about(inbox, "5", "evt_2")
        assert ids(take(inbox)) == ["evt_1"]

    def test_the_user_counts_where_the_object_has_no_id(self, inbox):
        add_about(inbox, None, "evt_login", type="auth.login", object={"user_id": "user_1"})
        add_about(inbox, "user_1", "evt_updated")
        add_about(inbox, None, "evt_key", type="api.key_expired", object={"id": "key_1", "user_id": "user_1"})
        assert ids(take(inbox)) == ["evt_login", "evt_key"]

    def test_events_about_no_object_are_never_held(self, inbox):
        for number, object in enumerate(({}, {"id": None}, {"id": ""}, {"id": [1]}, {"user_id": True}, {"name": "x"})):
            add_about(inbox, None, f"evt_{number}", object=object)
        assert len(take(inbox)) == 6

    # What is ordered

    def test_types_that_are_not_ordered_neither_hold_nor_are_held(self, inbox):
        ordered = ClaimFilter(ordered=("user.*",))
        add_about(inbox, "user_1", "evt_login_1", type="auth.login")
        add_about(inbox, "user_1", "evt_user_1", type="user.created", later=1)
        add_about(inbox, "user_1", "evt_login_2", type="auth.login", later=2)
        add_about(inbox, "user_1", "evt_user_2", type="user.updated", later=3)
        add_about(inbox, "user_1", "evt_login_3", type="auth.login", later=4)
        taken = take(inbox, claim_filter=ordered)
        assert ids(taken) == ["evt_login_1", "evt_user_1", "evt_login_2", "evt_login_3"]
        settle(inbox, taken[1])
        assert ids(take(inbox, claim_filter=ordered)) == ["evt_user_2"]

    def test_types_that_are_ordered_are_ordered_among_one_another(self, inbox):
        ordered = ClaimFilter(ordered=("user.created", "auth.*"))
        add_about(inbox, "user_1", "evt_created", type="user.created")
        add_about(inbox, "user_1", "evt_login", type="auth.login")
        add_about(inbox, "user_1", "evt_updated", type="user.updated")
        assert ids(take(inbox, claim_filter=ordered)) == ["evt_created", "evt_updated"]

    def test_ordered_types_are_told_apart_by_their_bytes(self, inbox):
        for number, type in enumerate(("user_x.a", "userax.a", "USER_X.a", "user_x.b", "user_xx.a")):
            add_about(inbox, "user_1", f"evt_{number}", type=type)
        assert ids(take(inbox, claim_filter=ClaimFilter(ordered=("user_x.*",)))) == ["evt_0", "evt_1", "evt_2", "evt_4"]

    def test_without_ordered_types_nothing_is_held(self, inbox):
        for number in range(3):
            add_about(inbox, "user_1", f"evt_{number}")
        assert len(inbox.claim(10, LEASE)) == 3

    def test_an_event_holds_those_behind_it_even_where_it_is_not_selected(self, inbox):
        add_about(inbox, "user_1", "evt_created", type="user.created")
        add_about(inbox, "user_1", "evt_updated")
        add_about(inbox, "user_2", "evt_other")
        paused = ClaimFilter(exclude=("user.created",), ordered=("user.*",))
        assert ids(take(inbox, claim_filter=paused)) == ["evt_other"]
        only = ClaimFilter(include=("user.updated",), ordered=("user.*",))
        assert take(inbox, claim_filter=only) == []
        assert ids(take(inbox)) == ["evt_created"]

    def test_an_event_in_work_that_is_not_selected_holds_the_others(self, inbox):
        add_about(inbox, "user_1", "evt_created", type="user.created", later=5)
        created = take_one(inbox)
        add_about(inbox, "user_1", "evt_updated")
        paused = ClaimFilter(exclude=("user.created",), ordered=("user.*",))
        assert take(inbox, claim_filter=paused) == []
        settle(inbox, created)
        assert ids(take(inbox, claim_filter=paused)) == ["evt_updated"]

    def test_what_is_held_still_counts_as_due(self, inbox, clock):
        add_about(inbox, "user_1", "evt_first")
        add_about(inbox, "user_1", "evt_second")
        take_one(inbox)
        clock.advance(3)
        assert inbox.seconds_until_due() == -3
        assert status_of(inbox, "evt_second") is Status.RECEIVED


class NewestAppliedContract:
    """For every inbox. See `InboxContract`."""

    def newest(self, inbox, object_id="user_1", tenant=""):
        """What the inbox says to a claim of an event that has no effect itself."""
        add_about(inbox, object_id, f"evt_{uuid.uuid4().hex}", tenant=tenant, type="asking.x")
        (claim,) = inbox.claim(1, LEASE, ClaimFilter(include=("asking.x",)))
        found = inbox.newest_applied(claim)
        settle(inbox, claim, Status.DEAD)
        return found

    def apply(self, inbox, id, later, status=Status.PROCESSED, *, object_id="user_1", tenant="", **values):
        add_about(inbox, object_id, id, later=later, tenant=tenant)
        (claim,) = inbox.claim(1, LEASE, ClaimFilter(exclude=("asking.x",)))
        assert settle(inbox, claim, status, **values)

    def test_at_first_there_is_none(self, inbox):
        assert self.newest(inbox) is None

    def test_a_processed_event_is_applied(self, inbox):
        self.apply(inbox, "evt_1", 5)
        assert self.newest(inbox) == CREATED + 5

    @pytest.mark.parametrize("progress", [{}, {"welcome": HandlerStatus.SKIPPED}, {"welcome": HandlerStatus.GIVEN_UP}])
    def test_a_processed_event_is_applied_whatever_its_handlers_did(self, inbox, progress):
        self.apply(inbox, "evt_1", 5, progress=progress)
        assert self.newest(inbox) == CREATED + 5

    @pytest.mark.parametrize("status", [Status.DEAD, Status.FAILED, Status.IGNORED])
    @pytest.mark.parametrize("became", [HandlerStatus.SKIPPED, HandlerStatus.GIVEN_UP, None])
    def test_what_did_not_succeed_is_not_applied(self, inbox, status, became):
        progress = {} if became is None else {"welcome": became}
        self.apply(inbox, "evt_1", 5, status, progress=progress, retry_in=9.0 if status is Status.FAILED else None)
        assert self.newest(inbox) is None

    @pytest.mark.parametrize("status", [Status.DEAD, Status.FAILED])
    def test_an_event_is_applied_where_one_of_its_handlers_succeeded(self, inbox, status):
        progress = {"bill": HandlerStatus.GIVEN_UP, "welcome": HandlerStatus.DONE, "other": HandlerStatus.SKIPPED}
        self.apply(inbox, "evt_1", 5, status, progress=progress, retry_in=9.0 if status is Status.FAILED else None)
        assert self.newest(inbox) == CREATED + 5

    def test_an_event_in_work_is_applied_as_soon_as_one_of_its_handlers_has_succeeded(self, inbox):
        add_about(inbox, "user_1", "evt_1", later=5)
        claim = claim_one(inbox)
        assert inbox.newest_applied(claim) is None
        inbox.record(claim, {"bill": HandlerStatus.GIVEN_UP})
        assert inbox.newest_applied(claim) is None
        inbox.record(claim, {"bill": HandlerStatus.GIVEN_UP, "welcome": HandlerStatus.DONE})
        assert inbox.newest_applied(claim) == self.newest(inbox) == CREATED + 5

    def test_names_of_handlers_are_no_progress(self, inbox):
        add_about(inbox, "user_1", "evt_1", later=5)
        claim = claim_one(inbox)
        inbox.record(
            claim, {"done": HandlerStatus.GIVEN_UP, '"done"': HandlerStatus.SKIPPED, ': "done"': HandlerStatus.SKIPPED}
        )
        assert inbox.newest_applied(claim) is None

    def test_the_greatest_counts_not_the_last(self, inbox):
        for id, later in (("evt_1", 5), ("evt_2", 9), ("evt_3", 7)):
            self.apply(inbox, id, later)
        assert self.newest(inbox) == CREATED + 9

    def test_it_goes_over_all_types(self, inbox):
        add_settled(inbox, "evt_unrelated", Status.PROCESSED)
        add_about(inbox, "user_1", "evt_1", type="user.deleted", later=5)
        settle(inbox, claim_one(inbox))
        add_about(inbox, None, "evt_2", type="auth.login", later=7, object={"user_id": "user_1"})
        settle(inbox, claim_one(inbox))
        assert self.newest(inbox) == CREATED + 7

    def test_other_objects_are_others(self, inbox):
        self.apply(inbox, "evt_1", 5, object_id="user_2")
        self.apply(inbox, "evt_2", 6, object_id="USER_1")
        self.apply(inbox, "evt_3", 7, object_id="user_1 ")
        assert self.newest(inbox) is None
        assert self.newest(inbox, "user_2") == CREATED + 5

    def test_other_tenants_are_others(self, inbox):
        self.apply(inbox, "evt_1", 5, tenant="acme")
        assert self.newest(inbox) is None
        assert self.newest(inbox, tenant="acme") == CREATED + 5

    def test_of_no_object_there_is_none(self, inbox):
        for number in range(2):
            add_about(inbox, None, f"evt_{number}", object={"name": "x"})
        first, second = inbox.claim(2, LEASE)
        settle(inbox, first)
        assert inbox.newest_applied(second) is None

    def test_a_long_id_is_an_id(self, inbox):
        self.apply(inbox, "evt_1", 5, object_id="x" * 300)
        assert self.newest(inbox, "x" * 300) == CREATED + 5
        assert self.newest(inbox, "x" * 301) is None

    def test_a_requeued_event_stays_applied_where_a_handler_had_succeeded(self, inbox):
        self.apply(
            inbox, "evt_1", 5, Status.DEAD, progress={"welcome": HandlerStatus.DONE, "bill": HandlerStatus.GIVEN_UP}
        )
        assert inbox.requeue("evt_1") == 1
        assert self.newest(inbox) == CREATED + 5

    # After it was pruned

    def test_it_stays_after_the_event_was_pruned(self, inbox, clock):
        self.apply(inbox, "evt_1", 5)
        clock.advance(10)
        assert inbox.prune(timedelta(seconds=1)) == 1
        assert self.newest(inbox) == CREATED + 5
        assert inbox.get("evt_1") is None

    def test_of_what_was_pruned_the_greatest_counts(self, inbox, clock):
        for id, later in (("evt_1", 5), ("evt_2", 9), ("evt_3", 7)):
            self.apply(inbox, id, later)
            clock.advance(10)
            assert inbox.prune(timedelta(seconds=1)) == 1
        assert self.newest(inbox) == CREATED + 9

    def test_of_what_was_pruned_at_once_the_greatest_counts(self, inbox, clock):
        for id, later in (("evt_1", 5), ("evt_2", 9), ("evt_3", 7)):
            self.apply(inbox, id, later)
        clock.advance(10)
        assert inbox.prune(timedelta(seconds=1)) == 3
        assert self.newest(inbox) == CREATED + 9

    @pytest.mark.parametrize(("later", "newest"), [(3, 5), (8, 8)])
    def test_what_was_pruned_and_what_is_there_count_together(self, inbox, clock, later, newest):
        self.apply(inbox, "evt_1", 5)
        clock.advance(10)
        inbox.prune(timedelta(seconds=1))
        self.apply(inbox, "evt_2", later)
        assert self.newest(inbox) == CREATED + newest

    def test_what_was_not_applied_leaves_nothing_when_it_is_pruned(self, inbox, clock):
        self.apply(inbox, "evt_1", 5, Status.DEAD, progress={"welcome": HandlerStatus.GIVEN_UP})
        self.apply(inbox, "evt_2", 6, Status.IGNORED)
        clock.advance(10)
        assert inbox.prune(timedelta(seconds=1), ("dead", "ignored")) == 2
        assert self.newest(inbox) is None

    def test_a_dead_event_that_was_applied_in_part_is_remembered_when_it_is_pruned(self, inbox, clock):
        self.apply(inbox, "evt_1", 5, Status.DEAD, progress=DONE)
        clock.advance(10)
        assert inbox.prune(timedelta(seconds=1), ("dead",)) == 1
        assert self.newest(inbox) == CREATED + 5

    def test_what_is_remembered_is_of_one_tenant_and_one_object(self, inbox, clock):
        self.apply(inbox, "evt_1", 5, tenant="acme")
        self.apply(inbox, "evt_2", 6, object_id="USER_1")
        add_settled(inbox, "evt_3", Status.PROCESSED)
        clock.advance(10)
        assert inbox.prune(timedelta(seconds=1), dry_run=True) == 3
        assert inbox.prune(timedelta(seconds=1)) == 3
        assert self.newest(inbox) is None
        assert self.newest(inbox, tenant="acme") == CREATED + 5
        assert self.newest(inbox, "USER_1") == CREATED + 6

    def test_pruning_what_is_about_no_object_leaves_nothing(self, inbox, clock):
        add_about(inbox, None, "evt_1", object={"name": "x"})
        settle(inbox, claim_one(inbox))
        clock.advance(10)
        assert inbox.prune(timedelta(seconds=1)) == 1
        assert inbox.prune_watermarks(timedelta(0)) == 0

    def test_what_is_remembered_is_forgotten_by_its_age(self, inbox, clock):
        self.apply(inbox, "evt_1", 0)
        self.apply(inbox, "evt_2", 100, object_id="user_2")
        clock.advance(10)
        inbox.prune(timedelta(seconds=1))
        age = clock.now - CREATED
        assert inbox.prune_watermarks(timedelta(seconds=age)) == 0
        assert inbox.prune_watermarks(timedelta(seconds=age - 100), dry_run=True) == 1
        assert inbox.prune_watermarks(timedelta(seconds=age - 100)) == 1
        assert self.newest(inbox) is None
        assert self.newest(inbox, "user_2") == CREATED + 100
        assert inbox.prune_watermarks(timedelta(seconds=age - 101)) == 1
        assert self.newest(inbox, "user_2") is None

    def test_forgetting_what_was_pruned_leaves_what_is_there(self, inbox, clock):
        self.apply(inbox, "evt_1", 9)
        clock.advance(10)
        inbox.prune(timedelta(seconds=1))
        self.apply(inbox, "evt_2", 5)
        assert inbox.prune_watermarks(timedelta(0)) == 1
        assert self.newest(inbox) == CREATED + 5
        assert inbox.prune_watermarks(timedelta(0)) == 0

    def test_it_stays_after_the_payload_was_deleted(self, inbox, clock):
        self.apply(inbox, "evt_1", 5)
        clock.advance(10)
        assert inbox.scrub(timedelta(seconds=1)) == 1
        assert self.newest(inbox) == CREATED + 5
        assert inbox.prune(timedelta(seconds=1)) == 1
        assert self.newest(inbox) == CREATED + 5

    def test_it_stays_after_the_object_was_erased(self, inbox):
        self.apply(inbox, "evt_1", 5)
        assert inbox.erase("user_1") == 1
        assert self.newest(inbox) == CREATED + 5

    def test_a_claim_of_an_erased_event_still_knows_its_object(self, inbox):
        self.apply(inbox, "evt_1", 5)
        add_about(inbox, "user_1", "evt_2", later=6)
        inbox.erase("user_1")
        claim = claim_one(inbox)
        assert inbox.newest_applied(claim) == CREATED + 5
