"""How a handler failed, as text that may be stored, logged and shown."""

from __future__ import annotations

import json
import traceback
from collections.abc import Collection, Iterator
from contextlib import suppress
from itertools import islice, product
from typing import Any, Final

from envoyou_core.errors import describe
from envoyou_core.event import Event
from envoyou_core.inbox.history import Failure
from envoyou_core.redaction import MAX_READ, excerpt, printable, redact

__all__ = ["MAX_TRACEBACK", "failure_of", "private_texts", "traceback_of"]

MAX_TRACEBACK: Final = 4_000
"""Characters that are kept: the last ones, for what was raised stands at the end."""

MAX_FRAMES: Final = 50

MIN_PRIVATE: Final = 8
"""Characters below which a part of an event, such as `{}`, is in every text and says nothing."""

MIN_VALUE: Final = 6
"""Characters. A shorter value of a payload may be an ordinary word, such as `admin`."""

MIN_SECRET_VALUE: Final = 3
"""Characters of a value whose member is named like a secret."""

MAX_VALUES: Final = 10_000
"""Values of a payload that are looked for, which bounds the time that a failure takes."""

CUT: Final = "[the beginning is cut]\n"

SECRET_NAMES: Final = ("secret", "passw", "passphrase", "token", "key", "pin", "code")
IDENTIFYING_NAMES: Final = frozenset({"id", "object", "type", "status", "created", "timestamp"})
"""Members whose values tell which event it was, and are stored beside the failure anyway."""


def failure_of(handler: str, error: BaseException, event: Event) -> Failure:
    """How `handler` failed for `event`: without the event's payload, and without what looks like a secret."""
    private = private_texts(event)
    return Failure(handler, describe(error, private=private), traceback_of(error, private=private))


def traceback_of(error: BaseException, *, private: Collection[str] = ()) -> str:
    """The redacted traceback of `error`, of its causes and of its groups, cut to its end.

    Args:
        error: a raised exception.
        private: texts to remove, such as those of `private_texts`.
    """
    try:
        text = "".join(traceback.format_exception(error, limit=-MAX_FRAMES))
    except Exception:
        # A user's error that cannot be put into words must not become one of ours.
        return describe(error, private=private)
    shown = redact(printable(excerpt(text, private, end=True), keep="\n\t"))
    if len(shown) <= MAX_TRACEBACK and len(text) <= MAX_READ:
        return shown
    return CUT + shown[len(CUT) - MAX_TRACEBACK :]


def private_texts(event: Event) -> frozenset[str]:
    """The payload of `event`, as a whole and value by value, in the forms in which a message may contain it."""
    body = event.body.decode("utf-8", "replace")
    values: set[str] = set()
    texts = {body, repr(event.body)[2:-1], repr(body)[1:-1], json.dumps(body)[1:-1]}
    # Who cannot read the object cannot have shown it either.
    with suppress(Exception):
        content = event.data.object
        if not isinstance(content, dict):
            content = json.loads(body)["data"]["object"]
        values = _values(content, public={event.id, event.type, event.object_id, event.webhook_id})
        texts.add(repr(event.data.object))
        for separators, ascii_only in product((None, (",", ":")), (True, False)):
            texts.add(json.dumps(content, separators=separators, ensure_ascii=ascii_only))
    return frozenset(values.union(text for text in texts if len(text) >= MIN_PRIVATE))


def _values(content: Any, *, public: set[str | None]) -> set[str]:
    texts: set[str] = set()
    for name, value in islice(_leaves(content), MAX_VALUES):
        shortest = MIN_SECRET_VALUE if any(word in name for word in SECRET_NAMES) else MIN_VALUE
        is_public = value in public or name in IDENTIFYING_NAMES or name.endswith("_id")
        if len(value) >= shortest and not is_public:
            texts |= {value, repr(value)[1:-1], json.dumps(value)[1:-1]}
    return texts


def _leaves(content: Any) -> Iterator[tuple[str, str]]:
    """Each string and integer of a payload, with the name of the member that holds it, without recursion."""
    waiting: list[tuple[str, Any]] = [("", content)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting += ((str(key).lower(), below) for key, below in value.items())
        elif isinstance(value, list):
            waiting += ((name, below) for below in value)
        elif isinstance(value, str):
            yield name, value
        elif isinstance(value, int) and not isinstance(value, bool):
            # Only ever as many digits as Python's own decoder takes.
            with suppress(ValueError):
                yield name, str(value)
