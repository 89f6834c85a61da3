"""Processes that know different handlers, where a task queue does the work."""

import pytest

from envoyou_core.inbox import ClaimFilter, HandlerSet, NewEvent, Settlement, Status
from envoyou_core.testing import sample_event
from envoyou_django.inbox.inbox import OrmInbox
from envoyou_django.runtime import DjangoWebhooks
from tests.django.conftest import SECRET

DAY = 86_400.0


@pytest.mark.parametrize(("handler", "is_enqueued"), [("bill", True), ("welcome", False)])
def test_a_task_is_enqueued_for_what_waits_for_a_handler_of_this_process(inbox_alias, clock, handler, is_enqueued):
    inbox = OrmInbox(clock=clock)
    inbox.add(NewEvent(sample_event("user.created", id="evt_1"))).result()
    (claim,) = inbox.claim(1, 60.0, ClaimFilter(handlers=HandlerSet.of([])))
    waiting = Settlement(Status.RECEIVED, 0, retry_in=DAY, owed={"bill": True}, waits_for="bill")
    assert inbox.settle(claim, waiting)
    made = DjangoWebhooks(inbox=inbox, hint=lambda: None, secret=SECRET, handoff="manual", clock=clock)
    made.on("user.*", name=handler)(lambda event: None)
    assert (made._overdue() > 0) is is_enqueued
    assert made.drain() == (1 if is_enqueued else 0)
    assert not is_enqueued or made._overdue() <= 0
