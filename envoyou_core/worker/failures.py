"""What is kept of a handler's failure, for whoever has to find out what went wrong."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from contextlib import suppress
from itertools import product
from typing import Final

from envoyou_core.errors import describe
from envoyou_core.event import Event
from envoyou_core.inbox.history import Failure
from envoyou_core.redaction import MAX_READ, hide, printable, redact

__all__ = ["MAX_TRACEBACK", "failures_of"]

MAX_TRACEBACK: Final = 4_000
"""Characters that are kept: the last ones, for what was raised stands at the end."""

MAX_FRAMES: Final = 50

MIN_PRIVATE: Final = 8
"""Characters below which a part of an event, such as `{}`, is in every text and says nothing."""

CUT: Final = "[the beginning is cut]\n"


def failures_of(failed: Mapping[str, Exception], event: Event) -> tuple[Failure, ...]:
    """How handlers, by their names, failed at `event`: without its body, and without what looks like a secret."""
    private = _forms_of(event) if failed else frozenset[str]()
    return tuple(
        Failure(name, describe(error, private=private), _traceback(error, private)) for name, error in failed.items()
    )


def _traceback(error: Exception, private: frozenset[str]) -> str:
    try:
        text = "".join(traceback.format_exception(error, limit=-MAX_FRAMES))
    except Exception:
        # A user's error that cannot be put into words must not become one of ours.
        return describe(error, private=private)
    text = hide(text, private)
    shown = redact(printable(text[-MAX_READ:], keep="\n\t"))
    if len(shown) <= MAX_TRACEBACK and len(text) <= MAX_READ:
        return shown
    return CUT + shown[len(CUT) - MAX_TRACEBACK :]


def _forms_of(event: Event) -> frozenset[str]:
    """The event's body, as an error's text may hold it."""
    body = event.body.decode("utf-8", "replace")
    forms = {body, repr(event.body)[2:-1], repr(body)[1:-1], json.dumps(body)[1:-1]}
    # Who cannot read the object cannot have shown it either.
    with suppress(Exception):
        content = event.data.object
        forms.add(repr(content))
        for separators, ascii_only in product((None, (",", ":")), (True, False)):
            forms.add(json.dumps(content, separators=separators, ensure_ascii=ascii_only))
    return frozenset(form for form in forms if len(form) >= MIN_PRIVATE)
