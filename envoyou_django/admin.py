"""The admin: events to look at, and to requeue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from textwrap import indent
from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from envoyou_core.inbox import Attempt
from envoyou_core.inbox.history import decode_history
from envoyou_django import conf, webhooks
from envoyou_django.models import ProcessedEvent, ProcessedEventQuerySet

__all__ = ["ProcessedEventAdmin"]


@admin.register(ProcessedEvent)
class ProcessedEventAdmin(admin.ModelAdmin):
    """Read-only, but for the action that requeues."""

    list_display = ("event_id", "type", "status", "attempts", "received_at", "due_at", "last_error")
    list_filter = ("status", "type", "received_at", "name")
    search_fields = ("event_id", "object_key", "webhook_id", "tenant")
    ordering = ("-id",)
    list_per_page = 50
    show_full_result_count = False
    actions = ("requeue",)
    fields = (
        ("event_id", "type", "created"),
        ("name", "tenant", "webhook_id"),
        "object_key",
        ("status", "attempts", "crashes"),
        ("received_at", "due_at", "settled_at", "scrubbed_at"),
        "progress",
        "last_error",
        "attempts_so_far",
        "payload",
    )
    readonly_fields = ("attempts_so_far", "payload")

    @admin.action(permissions=["requeue"], description=_("Requeue selected events"))
    def requeue(self, request: HttpRequest, queryset: ProcessedEventQuerySet) -> None:
        """Bring what is failed, ignored or dead back to the handlers."""
        now = datetime.fromtimestamp(conf.clock()(), UTC)
        requeued = queryset.order_by().requeue(now)
        webhooks.wake()
        level = messages.SUCCESS if requeued else messages.WARNING
        text = ngettext("%d event was requeued.", "%d events were requeued.", requeued) % requeued
        self.message_user(request, text, level)

    @admin.display(description=_("payload"))
    def payload(self, event: ProcessedEvent) -> str:
        """The body, spaced for reading."""
        text = json.dumps(json.loads(bytes(event.body)), indent=2, ensure_ascii=False)
        # Half of a surrogate pair is JSON, but no text that could be sent.
        return format_html("<pre>{}</pre>", text.encode("utf-8", "backslashreplace").decode())

    @admin.display(description=_("history"))
    def attempts_so_far(self, event: ProcessedEvent) -> str:
        """The attempts that have ended, the newest last, and what went wrong in them."""
        lines = [line for attempt in decode_history(event.history) for line in _lines(attempt)]
        return format_html("<pre>{}</pre>", "\n".join(lines)) if lines else self.get_empty_value_display()

    def has_requeue_permission(self, request: HttpRequest) -> bool:
        """Whether the user may requeue."""
        allowed: bool = request.user.has_perm("envoyou_django.requeue_processedevent")
        return allowed

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:
        """Events come from the platform only."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """What came is not changed."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """What is deleted would be new again when it is redelivered."""
        return False


def _lines(attempt: Attempt) -> Iterator[str]:
    if attempt.began_at is None:
        yield f"{_moment(attempt.ended_at)}: its process had died"
    else:
        yield f"{_moment(attempt.began_at)} to {_moment(attempt.ended_at)}: {attempt.status}"
    for failure in attempt.failures:
        yield f"  {failure.handler}: {failure.error}"
        yield indent(failure.traceback.rstrip(), "    ")


def _moment(moment: datetime) -> str:
    return moment.isoformat(sep=" ", timespec="milliseconds")
