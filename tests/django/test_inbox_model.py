"""The inbox over the ORM against the plain model, driven at random, on every database that is supported."""

import itertools

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from envoyou_django.inbox.inbox import OrmInbox
from tests.core.test_inbox_model import IDS, InboxMachine
from tests.thoroughness import examples


def test_the_inbox_does_what_the_model_does(inbox_alias):
    # What earlier runs have left in the database is in inboxes of other names.
    runs = itertools.count()

    class Machine(InboxMachine):
        def make_inbox(self, clock):
            return OrmInbox(name=f"run {next(runs)}", clock=clock)

        @rule(ids=st.sets(st.sampled_from(IDS)))
        def forget_what_they_are_about(self, ids):
            """As if an earlier release had stored them."""
            self.inbox._rows.filter(event_id__in=ids, scrubbed_at=None).update(object_key=None)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples(25, 8),
            stateful_step_count=25,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
