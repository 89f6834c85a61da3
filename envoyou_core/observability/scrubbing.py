"""What is removed from Sentry's events before they are sent: payloads, secrets and local variables."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

import sentry_sdk
from sentry_sdk.scope import add_global_event_processor

from envoyou_core.observability.current import current_handler
from envoyou_core.redaction import hide, printable, redact
from envoyou_core.worker.failures import private_texts

__all__ = ["clean_exceptions", "install", "is_own_record"]

HEADER_PREFIX: Final = "x-envoyou-"
PACKAGES: Final = ("envoyou_core", "envoyou_django", "envoyou_flask", "envoyou_fastapi")
REPORTED: Final = frozenset({"HandlerFailed", "Settled"})
"""Notices that are reported with their exceptions; their log lines are not reported once more."""

_installed: Final[set[object]] = set()


def install() -> None:
    """Scrub the events of this process from now on."""
    if not _installed:
        _installed.add(scrub_last)
        add_global_event_processor(scrub_last)


def scrub_last(event: Any, hint: Any) -> Any:
    """Scrub an event after the framework's integration has added the request to it."""
    if is_own_record(hint.get("log_record")):
        return None
    # Global processors run first, and those of the scope in the order in which they were added: the last one counts.
    scope = sentry_sdk.get_isolation_scope()
    if scope._event_processors[-1:] != [scrub]:  # noqa: SLF001 - there is no other way to see it
        scope.add_event_processor(scrub)
    # For the scope that had no processors, whose list the SDK has replaced by an empty one for this event.
    return scrub(event, hint)


def is_own_record(record: Any) -> bool:
    """Whether a log record is that of a failure which is reported with its exception."""
    own = getattr(record, "envoyou", None)
    return isinstance(own, dict) and own.get("notice") in REPORTED


def scrub(event: Any, hint: Any) -> Any:
    """Remove from an event that concerns webhooks what must not be sent; leave others as they are."""
    call, request = current_handler(), event.get("request") or {}
    headers = request.get("headers") or {}
    own = {name for name in headers if str(name).lower().startswith(HEADER_PREFIX)}
    if call is None and not own and not any(_is_ours(frame) for frame in _frames(event)):
        return event
    for frame in _frames(event):
        frame.pop("vars", None)
    if own:
        request.pop("data", None)
        request["headers"] = {name: value for name, value in headers.items() if name not in own}
    clean_exceptions(event, () if call is None else private_texts(call.event))
    return event


def clean_exceptions(event: Any, private: Collection[str]) -> None:
    """Redact the texts and source lines of an event's exceptions.

    Args:
        event: of Sentry.
        private: more texts to remove.
    """
    for value in (event.get("exception") or {}).get("values") or []:
        if isinstance(value.get("value"), str):
            value["value"] = _clean(value["value"], private)
    for frame in _frames(event):
        if isinstance(frame.get("context_line"), str):
            frame["context_line"] = redact(frame["context_line"])
        for lines in ("pre_context", "post_context"):
            if isinstance(frame.get(lines), list):
                frame[lines] = [redact(str(line)) for line in frame[lines]]


def _clean(text: str, private: Collection[str]) -> str:
    return redact(printable(hide(text, private), keep="\n\t"))


def _frames(event: Any) -> Iterator[Any]:
    holders = [event]
    for name in ("exception", "threads"):
        holders += (event.get(name) or {}).get("values") or []
    for holder in holders:
        yield from (holder.get("stacktrace") or {}).get("frames") or []


def _is_ours(frame: Any) -> bool:
    return str(frame.get("module") or "").partition(".")[0] in PACKAGES
