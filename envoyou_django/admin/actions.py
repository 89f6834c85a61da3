"""The actions on events: what each does, and its texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext_lazy

from envoyou_django.inbox.bulk import MAKE_DUE, MARK_DEAD, Operation, requeueing

__all__ = ["ACTIONS", "EventAction"]

Text = Any
"""A string, translated when it is shown."""


@dataclass(frozen=True, slots=True)
class EventAction:
    """An action on events.

    Attributes:
        name: the name of the action.
        operation: the change of the events.
        title: the question to the user.
        consequence: what the action does.
        button: the text of the button that confirms.
        running: the title while it runs.
        log_message: the text for the history of each event.
        result: the message at the end, with a placeholder for the number of events.
    """

    name: str
    operation: Operation
    title: Text
    consequence: Text
    button: Text
    running: Text
    log_message: Text
    result: Text


_ALL: Final = (
    EventAction(
        name="requeue",
        operation=requeueing(),
        title=_("Requeue events?"),
        consequence=_(
            "A requeued event is handled again as soon as possible, with all its attempts. Handlers that have "
            "succeeded do not run again."
        ),
        button=_("Yes, requeue"),
        running=_("Requeueing events"),
        log_message=_("Requeued."),
        result=ngettext_lazy("%d event was requeued.", "%d events were requeued."),
    ),
    EventAction(
        name="run_now",
        operation=MAKE_DUE,
        title=_("Run events now?"),
        consequence=_("Events that wait for their next attempt have it now. Their attempts are counted as before."),
        button=_("Yes, run now"),
        running=_("Making events due"),
        log_message=_("Made due."),
        result=ngettext_lazy("%d event is due now.", "%d events are due now."),
    ),
    EventAction(
        name="mark_dead",
        operation=MARK_DEAD,
        title=_("Mark events dead?"),
        consequence=_("A dead event is not retried and no longer blocks later events. It can be requeued."),
        button=_("Yes, mark dead"),
        running=_("Marking events dead"),
        log_message=_("Marked dead."),
        result=ngettext_lazy("%d event was marked dead.", "%d events were marked dead."),
    ),
)

ACTIONS: Final = {action.name: action for action in _ALL}
"""The actions by name."""
