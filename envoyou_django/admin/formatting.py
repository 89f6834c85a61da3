"""Formats the status, the attempts and the payload of an event as HTML."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from envoyou_core.adapter import body_bytes, decode_history, excerpt_of, headers_of, progress_of
from envoyou_core.inbox import HandlerStatus, Status
from envoyou_django.models import ProcessedEvent

__all__ = [
    "attempts_table",
    "badge",
    "handlers_list",
    "headers_list",
    "labelled",
    "payload_text",
    "to_the_second",
    "unreadable_note",
    "with_zone",
]

SYMBOLS: Final[dict[str, str]] = {
    Status.RECEIVED: "○",
    Status.PROCESSING: "◐",
    Status.PROCESSED: "✓",
    Status.IGNORED: "∅",
    Status.FAILED: "↻",
    Status.DEAD: "✕",
    "interrupted": "‖",
}
"""Shown beside the colour of each status, because some users cannot distinguish colours."""

_TOKEN = re.compile(r'(?P<key>"(?:[^"\\]|\\.)*"(?=:))|(?P<text>"(?:[^"\\]|\\.)*")|(?P<literal>\b(?:true|false|null)\b)')


def badge(status: str) -> SafeString:
    """Return a status with its name, symbol and colour."""
    return format_html(
        '<span class="envoyou-status envoyou-{}"><span aria-hidden="true">{}</span> {}</span>',
        status,
        SYMBOLS.get(status, "?"),
        _(status),
    )


def attempts_table(event: ProcessedEvent) -> str | None:
    """Return the ended attempts, the newest last, with the error of each handler; `None` if there are none."""
    history = decode_history(event.history)
    if not history:
        return None
    attempts = [
        (attempt, attempt.status and badge(attempt.status), with_zone(attempt.began_at), with_zone(attempt.ended_at))
        for attempt in history
    ]
    return render_to_string("envoyou_django/admin/attempts.html", {"attempts": attempts})


def to_the_second(moment: datetime | None) -> SafeString | None:
    """Format `moment` in the current time zone, without fractions of a second."""
    return None if moment is None else _time(_localtime(moment), "%Y-%m-%d %H:%M:%S")


def with_zone(moment: datetime | None) -> SafeString | None:
    """Format `moment` like `to_the_second`, with the name of the time zone."""
    return None if moment is None else _time(_localtime(moment), "%Y-%m-%d %H:%M:%S %Z")


def _localtime(moment: datetime) -> datetime:
    try:
        return timezone.localtime(moment)
    except OverflowError:
        # The last second of the year 9999 cannot be expressed in every time zone.
        return moment.astimezone(UTC)


def _time(moment: datetime, form: str) -> SafeString:
    # From left to right also on pages in languages that are written from right to left.
    return format_html('<time dir="ltr">{}</time>', moment.strftime(form))


def labelled(label: str, value: object) -> SafeString:
    """Return a value of the list with a label, which is shown if the list is too narrow for a table."""
    return format_html('<span class="envoyou-label">{}: </span>{}', label, value)


def handlers_list(event: ProcessedEvent) -> SafeString | None:
    """Return the handlers that will not run again, each with its status; `None` if there are none."""
    labels = {
        HandlerStatus.DONE: _("done"),
        HandlerStatus.GIVEN_UP: _("given up"),
        HandlerStatus.SKIPPED: _("skipped"),
        HandlerStatus.DROPPED: _("dropped"),
    }
    try:
        progress = progress_of(event.progress)
    except ValueError:
        return None
    items = ((handler, labels[status]) for handler, status in progress.items())
    return format_html_join("", '<div class="envoyou-handler"><bdi>{}</bdi>: {}</div>', items) or None


def headers_list(event: ProcessedEvent) -> SafeString | None:
    """Return the headers of the request that were kept; `None` if there are none."""
    headers = headers_of(event.headers) if event.headers else {}
    return format_html_join("", "<div><bdi>{}</bdi>: <bdi>{}</bdi></div>", headers.items()) or None


def unreadable_note(event: ProcessedEvent) -> SafeString:
    """Return why this release cannot read the event; empty if it can."""
    reason = event.unreadable
    return format_html('<p class="errornote">{}: {}</p>', _("unreadable"), reason) if reason else SafeString()


def payload_text(event: ProcessedEvent, download: str) -> SafeString:
    """Return the payload, indented and highlighted, with a link to download it.

    Args:
        event: the event with the payload.
        download: URL of the whole payload.
    """
    body = body_bytes(event.body)
    excerpt = excerpt_of(body)
    context = {
        "text": _highlight(excerpt.text) if excerpt.is_json else excerpt.text,
        "is_complete": excerpt.is_complete,
        "size": len(body),
        "download": download,
    }
    return render_to_string("envoyou_django/admin/payload.html", context)


def _highlight(text: str) -> SafeString:
    pieces: list[tuple[str, str]] = []
    end = 0
    for match in _TOKEN.finditer(text):
        pieces += [("rest", text[end : match.start()]), (match.lastgroup or "rest", match[0])]
        end = match.end()
    return format_html_join("", '<span class="envoyou-{}">{}</span>', [*pieces, ("rest", text[end:])])
