"""Whatever is asked of it, in whatever order: the inbox over the ORM says and does what the one in memory does."""

from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest

from envoyou_core.inbox import FINISHED, Entry, Failure, Progress, Selection, Settlement, Status
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.testing import sample_event
from envoyou_django.inbox import OrmInbox
from envoyou_django.models import ProcessedEvent

STEPS = 60
CREATED = 1_600_000_000

# Alike to a database that folds cases, ignores spaces at the end or takes an underscore for any character.
TYPES = ["user.created", "user.updated", "User.created", "user_created", "userx", "auth.login"]
OBJECTS = [
    *({"id": "usr_1"}, {"id": "USR_1"}, {"id": "usr_1 "}, {"id": 7}, {"id": "x" * 300}),
    *({"user_id": "usr_1"}, {"name": "Ada"}),
]
OBJECT_IDS = ["usr_1", "USR_1", "7", "x" * 300, "nobody"]
PATTERNS = [("user.*",), ("*",), ("user.created",), ("user.updated", "auth.*"), ()]
PROGRESS = [{}, {"welcome": Progress.DONE}, {"welcome": Progress.SKIPPED, "bill": Progress.GIVEN_UP}]
STATUSES = [("processed", "ignored"), ("dead",), ("dead", "processed")]


class Both:
    """Two inboxes that are asked the same."""

    def __init__(self, seed, alias, clock):
        self.random = Random(seed)
        self.alias = alias
        self.clock = clock
        self.inboxes = [MemoryInbox(clock=clock), OrmInbox(clock=clock)]
        self.held = []

    def ask(self, question):
        expected, found = (question(inbox) for inbox in self.inboxes)
        assert found == expected

    def any_id(self):
        return f"evt_{self.random.randrange(14)}"

    def add(self):
        event = sample_event(
            self.random.choice(TYPES),
            id=self.any_id(),
            created=CREATED + self.random.randrange(4),
            object=self.random.choice(OBJECTS),
        )
        received_at = self.random.choice([None, self.clock.moment(-100.5)])
        entry = Entry(event, self.random.choice(["", "acme"]), self.random.choice([None, "wh_1"]), received_at)
        self.ask(lambda inbox: inbox.add(entry).result())

    def claim(self):
        any_of = self.random.choice
        selection = Selection(any_of([None, None, *PATTERNS]), any_of([(), (), *PATTERNS]), any_of(PATTERNS))
        limit, lease = any_of([1, 2, 10]), any_of([5, 30])
        expected, found = (inbox.claim(limit, lease, selection) for inbox in self.inboxes)
        assert [replace(claim, key=0, token="") for claim in found] == [
            replace(claim, key=0, token="") for claim in expected
        ]
        self.held += zip(expected, found, strict=True)

    def settlement(self, claim):
        status = self.random.choice([*FINISHED, Status.FAILED])
        error = self.random.choice([None, "OSError: no route"])
        return Settlement(
            status,
            claim.attempts + 1,
            progress=self.random.choice(PROGRESS),
            retry_in=self.random.choice([0.0, 4.0]) if status is Status.FAILED else None,
            error=error,
            seconds=self.random.choice([None, 1.5]),
            failures=(Failure("bill", error, "Traceback: ..."),) if error else (),
            scrub=status in FINISHED and self.random.random() < 0.15,
        )

    def settle(self):
        settled = [self.held.pop(self.random.randrange(len(self.held))) for _ in range(min(len(self.held), 3))]
        settlements = [self.settlement(claims[0]) for claims in settled]
        expected, found = (
            inbox.settle_all([(claims[place], one) for claims, one in zip(settled, settlements, strict=True)])
            for place, inbox in enumerate(self.inboxes)
        )
        assert found == expected

    def of_a_claim(self, question):
        if self.held:
            expected, found = (
                question(inbox, claim) for inbox, claim in zip(self.inboxes, self.random.choice(self.held), strict=True)
            )
            assert found == expected

    def record(self):
        progress = self.random.choice(PROGRESS)
        self.of_a_claim(lambda inbox, claim: inbox.record(claim, progress))

    def renew(self):
        self.of_a_claim(lambda inbox, claim: inbox.renew([claim], 20))

    def newest_applied(self):
        self.of_a_claim(lambda inbox, claim: inbox.newest_applied(claim))

    def pass_time(self):
        self.clock.advance(self.random.choice([1, 6, 40]))

    def requeue(self):
        named = self.random.choice(
            [{"status": "dead"}, {"status": "failed"}, {"type": "user.created"}, {"event_id": self.any_id()}]
        )
        self.ask(lambda inbox: inbox.requeue(**named))

    def prune(self):
        old, statuses = timedelta(seconds=self.random.choice([0, 10])), self.random.choice(STATUSES)
        self.ask(lambda inbox: inbox.prune(old, statuses))

    def scrub(self):
        old, statuses = timedelta(seconds=self.random.choice([0, 10])), self.random.choice(STATUSES)
        self.ask(lambda inbox: inbox.scrub(old, statuses))

    def erase(self):
        object_id, tenant = self.random.choice(OBJECT_IDS), self.random.choice([None, "", "acme"])
        self.ask(lambda inbox: inbox.erase(object_id, tenant=tenant))

    def prune_marks(self):
        old = timedelta(seconds=self.clock() - CREATED - self.random.choice([0, 2]))
        self.ask(lambda inbox: inbox.prune_marks(old))

    def pause(self):
        subject = self.random.choice(["welcome", "Welcome", "user.*"])
        self.ask(lambda inbox: inbox.pause(subject))

    def resume(self):
        subject = self.random.choice(["welcome", "Welcome", "user.*"])
        self.ask(lambda inbox: inbox.resume(subject))

    def look(self):
        filters = {"status": [None, "dead"], "type": [None, *TYPES], "object_id": [None, *OBJECT_IDS], "limit": [3, 99]}
        asked = {name: self.random.choice(values) for name, values in filters.items()}
        self.ask(lambda inbox: inbox.list(**asked))
        self.ask(lambda inbox: inbox.list())
        self.ask(lambda inbox: inbox.stats())
        self.ask(lambda inbox: inbox.paused())
        self.ask(lambda inbox: inbox.seconds_until_due())

    def forget_objects(self):
        """As if an earlier release had stored some of them."""
        rows = ProcessedEvent.objects.using(self.alias)
        keys = [key for key in rows.values_list("pk", flat=True) if self.random.random() < 0.5]
        rows.filter(pk__in=keys, scrubbed_at=None).update(object_key=None)


@pytest.mark.parametrize("seed", range(8))
def test_both_say_the_same(inbox_alias, clock, seed):
    both = Both(seed, inbox_alias, clock)
    rarely = [
        *(both.record, both.renew, both.newest_applied, both.requeue, both.prune, both.scrub, both.erase),
        *(both.prune_marks, both.pause, both.resume, both.forget_objects),
    ]
    often = [both.add, both.claim, both.settle, both.pass_time]
    for _ in range(STEPS):
        both.random.choice([*often, *often, *rarely])()
        both.look()
