"""The admin: events to look at, and to requeue."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from envoyou_django import conf, webhooks
from envoyou_django.models import ProcessedEvent, ProcessedEventQuerySet

__all__ = ["ProcessedEventAdmin"]


@admin.register(ProcessedEvent)
class ProcessedEventAdmin(admin.ModelAdmin):
    """Read-only, but for the action that requeues."""

    list_display = ("event_id", "type", "status", "attempts", "received_at", "due_at", "last_error")
    list_filter = ("status", "type", "received_at", "name")
    search_fields = ("event_id", "webhook_id", "tenant")
    ordering = ("-id",)
    list_per_page = 50
    show_full_result_count = False
    actions = ("requeue",)
    fields = (
        ("event_id", "type", "created"),
        ("name", "tenant", "webhook_id"),
        ("status", "attempts", "crashes"),
        ("received_at", "due_at", "settled_at"),
        "progress",
        "last_error",
        "payload",
    )
    readonly_fields = ("payload",)

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
