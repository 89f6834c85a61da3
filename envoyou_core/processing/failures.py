"""What is kept of an error: enough to find out what went wrong, and nothing that is nobody's business."""

from __future__ import annotations

import re
import traceback
import unicodedata

from envoyou_core.errors import describe
from envoyou_core.event import Event
from envoyou_core.inbox.history import Failure

__all__ = ["LONGEST_TRACEBACK", "describe_failure", "redacted"]

LONGEST_TRACEBACK = 4_000
"""Characters that are kept of a traceback: its end, where the error is."""

_LONGEST_READ = 60_000
"""Characters: what lies further from the end is not kept anyway."""

LEFT_OUT = "[left out]"

_SECRETS = [
    re.compile(r"whsec_[^\s'\"]+"),
    re.compile(r"\bv1,[0-9a-fA-F]{16,}"),
    re.compile(r"(?<=://)[^\s/@]*:[^\s/@]*(?=@)"),
    re.compile(r"(?i)(?<=\bBearer )[^\s'\"]+"),
    re.compile(r"(?i)(?<=\bBasic )[^\s'\"]+"),
]
# Every repetition has a bound, so that no text, however it was made, takes long.
_NAMED = re.compile(
    r"""(?ix)
    ( (?: secret | passw | pwd | token | api_?key | authorization | credential )
      [\w.\-]{0,64} ['"]? \s{0,8} [=:] \s{0,8} )
    ( "(?:[^"\\]|\\.){0,9999}" | '(?:[^'\\]|\\.){0,9999}' | [^\s,;)}\]]{1,9999} )
    """
)


def describe_failure(handler: str, error: BaseException, event: Event) -> Failure:
    """How `handler` failed, fit for the inbox and for people; it never raises."""
    return Failure(handler, redacted(describe(error), event), _traceback(error, event))


def redacted(said: str, event: Event) -> str:
    """`said` without the event's body, and without what looks like a secret."""
    body = event.body.decode("utf-8", "replace")
    said = said.replace(body, LEFT_OUT).replace(repr(body)[1:-1], LEFT_OUT)
    for secret in _SECRETS:
        said = secret.sub(LEFT_OUT, said)
    return _NAMED.sub(lambda found: found[1] + LEFT_OUT, said)


def _traceback(error: BaseException, event: Event) -> str:
    try:
        lines = "".join(traceback.format_exception(error))
    except Exception as unspeakable:
        # A user's error that cannot be put into words must not become one of ours.
        return f"{type(error).__qualname__}, whose traceback failed with {type(unspeakable).__qualname__}\n"
    text = _storable(redacted(lines[-_LONGEST_READ:], event))
    return text if len(text) <= LONGEST_TRACEBACK else "[...]\n" + text[-LONGEST_TRACEBACK:]


def _storable(text: str) -> str:
    """What every database stores, and what does not move a terminal's cursor."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in {"Cc", "Cs"} else "\N{REPLACEMENT CHARACTER}" for c in text
    )
