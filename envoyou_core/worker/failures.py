"""Describes the failure of a handler as text that is safe to store, log and show."""

from __future__ import annotations

import json
import traceback
from collections.abc import Collection, Iterator
from contextlib import suppress
from itertools import islice, product
from typing import TYPE_CHECKING, Any, Final

from envoyou_core.errors import RetryLater, describe
from envoyou_core.event import Event
from envoyou_core.payloads import IDENTIFYING_NAMES
from envoyou_core.redaction import MAX_READ, excerpt, printable, redact
from envoyou_core.worker.frames import leave_out_callers

if TYPE_CHECKING:
    from envoyou_core.inbox.history import Failure

__all__ = ["MAX_TRACEBACK", "failure_of", "private_texts", "traceback_of"]

MAX_TRACEBACK: Final = 4_000
"""The longest traceback that is kept, in characters. Its beginning is cut, because the exception is at its end."""

MAX_FRAMES: Final = 50
"""The largest number of frames in a traceback: the innermost ones."""

MIN_PRIVATE: Final = 8
"""The shortest form of a payload that is removed, in characters. A shorter one, such as `{}`, reveals nothing."""

MIN_VALUE: Final = 6
"""The shortest value of a payload that is removed, in characters. A shorter one may be a common word like `admin`."""

MIN_SECRET_VALUE: Final = 3
"""The same for a value whose member is named like a secret."""

MAX_VALUES: Final = 10_000
"""The largest number of values of a payload that are removed. It bounds the time that a failure takes."""

CUT: Final = "[the beginning is cut]\n"

SECRET_NAMES: Final = ("secret", "passw", "passphrase", "token", "key", "pin", "code")


def failure_of(handler: str, error: BaseException, event: Event) -> Failure:
    """Describe how `handler` failed, without the event's payload and anything that looks like a secret."""
    from envoyou_core.inbox.history import Failure

    private = private_texts(event)
    # `RetryLater` is a request and not an error: how it came about needs no explanation.
    is_request = isinstance(error, RetryLater)
    traceback = "" if is_request else traceback_of(error, private=private, from_caller=True)
    return Failure(handler, describe(error, private=private), traceback)


def traceback_of(error: BaseException, *, private: Collection[str] = (), from_caller: bool = False) -> str:
    """Return the redacted traceback of `error`, including its causes and exception groups, with its beginning cut.

    Args:
        error: a raised exception.
        private: texts to remove, such as those of `private_texts`.
        from_caller: whether the error comes from a function of the user's, so that the frames of this library which
            lead to its call are left out.
    """
    try:
        formatted = traceback.TracebackException.from_exception(error, limit=-MAX_FRAMES, compact=True)
        if from_caller:
            leave_out_callers(formatted)
        text = "".join(formatted.format())
    except Exception:
        # The exception's own code has failed, for example its `__str__`.
        return describe(error, private=private)
    shown = redact(printable(excerpt(text, private, end=True), keep="\n\t"))
    if len(shown) <= MAX_TRACEBACK and len(text) <= MAX_READ:
        return shown
    return CUT + shown[len(CUT) - MAX_TRACEBACK :]


def private_texts(event: Event) -> frozenset[str]:
    """Return the payload of `event`, as a whole and value by value, in each form that a message may contain."""
    body = event.body.decode("utf-8", "replace")
    values: set[str] = set()
    texts = {body, repr(event.body)[2:-1], repr(body)[1:-1], json.dumps(body)[1:-1]}
    # If the object cannot be read, no handler can have shown it either.
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
    """Yield each string and integer of a payload with the name of its member; without recursion."""
    remaining: list[tuple[str, Any]] = [("", content)]
    while remaining:
        name, value = remaining.pop()
        if isinstance(value, dict):
            remaining += ((str(key).lower(), child) for key, child in value.items())
        elif isinstance(value, list):
            remaining += ((name, child) for child in value)
        elif isinstance(value, str):
            yield name, value
        elif isinstance(value, int) and not isinstance(value, bool):
            # Python refuses to convert an integer with too many digits.
            with suppress(ValueError):
                yield name, str(value)
