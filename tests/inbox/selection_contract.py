"""Which events a pattern selects: for a worker, and for those who list and requeue."""

from __future__ import annotations

import pytest

from envoyou_core.inbox import ClaimFilter, Settlement, Status
from tests.inbox.acts import LEASE, add, add_settled, ids, status_of


class SelectionContract:
    """For every inbox. See `InboxContract`."""

    @pytest.mark.parametrize(
        ("pattern", "types", "matching"),
        [
            ("user.created", ["user.created", "user.updated", "auth.login"], ["user.created"]),
            (
                "user.*",
                ["user.created", "user.updated", "user.", "auth.login"],
                ["user.created", "user.updated", "user."],
            ),
            ("*", ["user.created", "auth.login", "x"], ["user.created", "auth.login", "x"]),
            ("user.*", ["user", "users.created", "user/created", "user-x", "a.user.created"], []),
            ("user.a.*", ["user.a.b", "user.a.b.c", "user.ab", "user.a"], ["user.a.b", "user.a.b.c"]),
            ("user.created", ["User.created", "user.Created", "USER.CREATED"], []),
            ("user.*", ["User.created", "USER.x", "user.X"], ["user.X"]),
            ("user.created", ["user.created ", " user.created", "user.created\u00a0"], []),
            ("user_x.*", ["user_x.a", "userax.a", "user.x.a"], ["user_x.a"]),
            ("user%x.*", ["user%x.a", "userabcx.a", "userx.a"], ["user%x.a"]),
            ("user\\x.*", ["user\\x.a", "userx.a", "user\\\\x.a"], ["user\\x.a"]),
            ("user[x].*", ["user[x].a", "userx.a"], ["user[x].a"]),
            ("user?.*", ["user?.a", "users.a"], ["user?.a"]),
            ("user'\".*", ["user'\".a", "user.a"], ["user'\".a"]),
            ("us\u00e9r.*", ["us\u00e9r.a", "use\u0301r.a", "user.a", "us\u00c9r.a"], ["us\u00e9r.a"]),
            ("user.\u00e9", ["user.\u00e9", "user.e", "user.\u00c9"], ["user.\u00e9"]),
            ("user.*", ["user.\U0001f389", "user.\uffff", "user.\U0010ffff", "user.z"], None),
            ("%", ["%", "user.created"], ["%"]),
            ("_.*", ["_.a", "x.a"], ["_.a"]),
            ("t" * 253 + ".*", ["t" * 253 + ".a", "t" * 252 + ".a", "t" * 255], ["t" * 253 + ".a"]),
        ],
        ids=range(20),
    )
    def test_a_pattern_selects_the_types_of_its_bytes(self, inbox, pattern, types, matching):
        matching = types if matching is None else matching
        for number, type in enumerate(types):
            add(inbox, f"evt_{number}", type)
        others = [type for type in types if type not in matching]
        taken = inbox.claim(len(types), LEASE, ClaimFilter(include=(pattern,)))
        assert [claim.event.type for claim in taken] == matching
        rest = inbox.claim(len(types), LEASE, ClaimFilter(exclude=(pattern,)))
        assert [claim.event.type for claim in rest] == others

    @pytest.mark.parametrize(
        ("pattern", "others"),
        [("user.*", ["user", "users.a", "userx"]), ("user_x.a", ["userax.a"]), ("user.a", ["User.a", "user.a "])],
    )
    def test_what_a_pattern_leaves_out_is_all_that_it_does_not_match(self, inbox, pattern, others):
        for number, type in enumerate(others):
            add(inbox, f"evt_{number}", type)
        assert inbox.claim(10, LEASE, ClaimFilter(include=(pattern,))) == []
        assert len(inbox.claim(10, LEASE, ClaimFilter(exclude=(pattern,)))) == len(others)

    @pytest.mark.parametrize(
        ("pattern", "matching"),
        [
            ("user.*", ["user.created", "user.deleted"]),
            ("user_x.*", ["user_x.a"]),
            ("User.x", ["User.x"]),
            ("*", ["user.created", "User.x", "user_x.a", "userax.a", "user.deleted"]),
        ],
    )
    def test_a_pattern_means_the_same_when_events_are_listed_and_requeued(self, inbox, pattern, matching):
        for number, type in enumerate(["user.created", "User.x", "user_x.a", "userax.a", "user.deleted"]):
            add(inbox, f"evt_{number}", type)
        for claim in inbox.claim(10, LEASE):
            inbox.settle(claim, Settlement(Status.DEAD, 1))
        assert [record.event.type for record in inbox.list(type=pattern)] == matching[::-1]
        assert inbox.list(type=pattern, status=Status.RECEIVED) == []
        assert inbox.requeue(type=pattern, dry_run=True) == len(matching)
        assert inbox.requeue(type=pattern) == len(matching)
        assert {record.event.type for record in inbox.list(status=Status.RECEIVED)} == set(matching)

    @pytest.mark.parametrize("pattern", ["", "user*", "*.created"])
    def test_an_invalid_pattern_is_refused_and_selects_nothing(self, inbox, pattern):
        add(inbox)
        for select in (inbox.list, inbox.requeue):
            with pytest.raises(ValueError, match="invalid event type"):
                select(type=pattern)

    def test_one_of_several_patterns_is_enough(self, inbox):
        for number, type in enumerate(["user.created", "auth.login", "api.x", "api.y", "system.incident"]):
            add(inbox, f"evt_{number}", type)
        only = ClaimFilter(include=("api.*", "user.created"))
        assert ids(inbox.claim(10, LEASE, only)) == ["evt_0", "evt_2", "evt_3"]
        assert inbox.claim(10, LEASE, ClaimFilter(exclude=("auth.*", "system.incident"))) == []
        assert ids(inbox.claim(10, LEASE, ClaimFilter(exclude=("api.*", "user.*")))) == ["evt_1", "evt_4"]

    def test_what_is_left_out_is_left_out_of_what_is_wanted(self, inbox):
        for number, type in enumerate(["user.created", "user.deleted", "auth.login"]):
            add(inbox, f"evt_{number}", type)
        assert ids(inbox.claim(10, LEASE, ClaimFilter(include=("user.*",), exclude=("user.deleted",)))) == ["evt_0"]
        assert inbox.claim(10, LEASE, ClaimFilter(include=("user.deleted",), exclude=("*",))) == []

    def test_nothing_wanted_is_nothing_claimed(self, inbox):
        add(inbox)
        assert inbox.claim(10, LEASE, ClaimFilter(include=())) == []
        assert inbox.claim(10, LEASE, ClaimFilter(exclude=("*",))) == []
        assert status_of(inbox, "evt_1") is Status.RECEIVED
        assert ids(inbox.claim(10, LEASE, ClaimFilter())) == ["evt_1"]

    def test_as_many_patterns_as_an_application_may_have(self, inbox):
        add(inbox, "evt_1", "user.a199")
        add(inbox, "evt_2", "user.b")
        add(inbox, "evt_3", "family199.b")
        exact = tuple(f"user.a{number}" for number in range(200))
        families = tuple(f"family{number}.*" for number in range(200))
        assert ids(inbox.claim(10, LEASE, ClaimFilter(exclude=exact + families, ordered=exact + families))) == ["evt_2"]
        assert ids(inbox.claim(10, LEASE, ClaimFilter(include=exact + families))) == ["evt_1", "evt_3"]

    @pytest.mark.parametrize("limit", [1, 2])
    def test_no_more_is_claimed_of_what_is_selected_than_was_asked_for(self, inbox, limit):
        for number in range(3):
            add(inbox, f"evt_auth_{number}", "auth.login")
            add(inbox, f"evt_user_{number}", "user.created")
        taken = inbox.claim(limit, LEASE, ClaimFilter(include=("user.*",)))
        assert ids(taken) == [f"evt_user_{number}" for number in range(limit)]
        assert inbox.stats().by_status[Status.PROCESSING] == limit

    def test_what_is_not_selected_does_not_stand_in_the_way(self, inbox):
        for number in range(30):
            add(inbox, f"evt_{number}", "auth.login")
        add(inbox, "evt_last", "user.created")
        assert ids(inbox.claim(2, LEASE, ClaimFilter(include=("user.*",)))) == ["evt_last"]

    def test_a_selection_is_of_what_is_due(self, inbox, clock):
        add_settled(inbox, "evt_later", Status.FAILED, retry_in=5.0)
        add_settled(inbox, "evt_never", Status.PROCESSED)
        assert inbox.claim(10, LEASE, ClaimFilter(include=("user.*",))) == []
        clock.advance(5)
        assert ids(inbox.claim(10, LEASE, ClaimFilter(include=("user.*",)))) == ["evt_later"]

    def test_an_event_in_work_whose_type_is_not_selected_is_not_taken_over(self, inbox, clock):
        add(inbox)
        inbox.claim(1, LEASE)
        clock.advance(LEASE)
        assert inbox.claim(10, LEASE, ClaimFilter(exclude=("user.*",))) == []
        assert inbox.get("evt_1").crashes == 0
        (again,) = inbox.claim(10, LEASE, ClaimFilter(include=("user.*",)))
        assert again.crashes == 1
