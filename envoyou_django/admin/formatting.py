"""One event, for people to read: its state, its attempts, its payload."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from envoyou_core.adapter import body_bytes, decode_history, progress_of
from envoyou_core.inbox import HandlerStatus, Status
from envoyou_django.admin.payloads import excerpt_of
from envoyou_django.models import ProcessedEvent

__all__ = ["attempts_table", "badge", "handlers_list", "payload_text", "to_the_second", "unreadable_note"]

SYMBOLS: Final[dict[str, str]] = {
    Status.RECEIVED: "○",
    Status.PROCESSING: "◐",
    Status.PROCESSED: "✓",
    Status.IGNORED: "∅",
    Status.FAILED: "↻",
    Status.DEAD: "✕",
}
"""Beside the colour of each state, for whoever cannot tell the colours apart."""

_PIECES = re.compile(
    r'(?P<key>"(?:[^"\\]|\\.)*"(?=:))|(?P<text>"(?:[^"\\]|\\.)*")|(?P<literal>\b(?:true|false|null)\b)'
)


def badge(status: str) -> SafeString:
    """A state in its colour, with its name and a symbol."""
    return format_html(
        '<span class="envoyou-status envoyou-{}"><span aria-hidden="true">{}</span> {}</span>',
        status,
        SYMBOLS.get(status, "?"),
        _(status),
    )


def attempts_table(event: ProcessedEvent) -> str | None:
    """The attempts that have ended, the newest last, and how each handler failed; `None` where there were none."""
    history = decode_history(event.history)
    if not history:
        return None
    attempts = [(attempt, attempt.status and badge(attempt.status)) for attempt in history]
    return render_to_string("envoyou_django/admin/attempts.html", {"attempts": attempts})


def to_the_second(moment: datetime | None) -> str | None:
    """A moment in the current time zone, short enough for a column."""
    return None if moment is None else f"{timezone.localtime(moment):%Y-%m-%d %H:%M:%S}"


def handlers_list(event: ProcessedEvent) -> SafeString | None:
    """The handlers that will not run again, and why; `None` where there are none."""
    words = {HandlerStatus.DONE: _("done"), HandlerStatus.GIVEN_UP: _("given up"), HandlerStatus.SKIPPED: _("left out")}
    try:
        progress = progress_of(event.progress)
    except ValueError:
        return None
    became = ((handler, words[it]) for handler, it in progress.items())
    return format_html_join("", '<div class="envoyou-handler">{}: {}</div>', became) or None


def unreadable_note(event: ProcessedEvent) -> SafeString:
    """Why this release cannot read the event; empty if it can."""
    reason = event.unreadable
    return format_html('<p class="errornote">{}: {}</p>', _("unreadable"), reason) if reason else SafeString()


def payload_text(event: ProcessedEvent, download: str) -> SafeString:
    """The payload, spaced and coloured for reading, with a link to all of it.

    Args:
        event: whose payload it is.
        download: URL of the whole payload.
    """
    body = body_bytes(event.body)
    excerpt = excerpt_of(body)
    context = {
        "text": _coloured(excerpt.text) if excerpt.is_json else excerpt.text,
        "is_complete": excerpt.is_complete,
        "size": len(body),
        "download": download,
    }
    return render_to_string("envoyou_django/admin/payload.html", context)


def _coloured(text: str) -> SafeString:
    pieces: list[tuple[str, str]] = []
    end = 0
    for found in _PIECES.finditer(text):
        pieces += [("rest", text[end : found.start()]), (found.lastgroup or "rest", found[0])]
        end = found.end()
    return format_html_join("", '<span class="envoyou-{}">{}</span>', [*pieces, ("rest", text[end:])])
