"""The admin of events: what can be seen of them, and what can be done to them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import truncatechars
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.http import content_disposition_header
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_POST, require_safe

from envoyou_core.adapter import body_bytes
from envoyou_django import conf, webhooks
from envoyou_django.admin.confirmation import Question, ask, is_confirmed
from envoyou_django.admin.formatting import (
    attempts_table,
    badge,
    handlers_list,
    payload_text,
    to_the_second,
    unreadable_note,
)
from envoyou_django.admin.lists import DayFilter, EventList, InboxFilter, found
from envoyou_django.admin.summary import look
from envoyou_django.models import ProcessedEvent, ProcessedEventQuerySet

__all__ = ["ProcessedEventAdmin"]

MAX_FILENAME = 100
"""Characters of an event's id that name a download."""

MAX_ERROR = 80
"""Characters of an error that the list shows."""


@admin.register(ProcessedEvent)
class ProcessedEventAdmin(admin.ModelAdmin):
    """Read-only, but for what brings an event back, gives it up, or has it tried now."""

    list_display = ("event_id", "type", "state", "error", "received", "attempts", "due")
    list_filter = ("status", DayFilter, "type", ("name", InboxFilter))
    search_fields = ("event_id", "object_key")
    ordering = ("-id",)
    list_per_page = 50
    show_full_result_count = False
    actions = ("requeue", "mark_dead")
    fieldsets = (
        (None, {"fields": (("event_id", "type"), ("about", "happened"))}),
        (
            gettext_lazy("Work"),
            {
                "fields": (
                    ("state", "attempts", "crashes"),
                    ("received", "due", "settled"),
                    "handlers",
                    "last_error",
                    "attempts_so_far",
                )
            },
        ),
        (gettext_lazy("Payload"), {"fields": ("payload",)}),
        (gettext_lazy("Origin"), {"fields": (("name", "tenant", "webhook_id"),)}),
    )
    readonly_fields = (
        "about",
        "attempts_so_far",
        "due",
        "handlers",
        "happened",
        "payload",
        "received",
        "settled",
        "state",
    )

    class Media:
        """The colours, light and dark."""

        css = {"all": ["envoyou_django/admin.css"]}

    # The list

    def get_changelist(self, request: HttpRequest, **keywords: Any) -> type[EventList]:
        """See `ModelAdmin.get_changelist`."""
        return EventList

    def get_search_results(
        self, request: HttpRequest, queryset: ProcessedEventQuerySet, search_term: str
    ) -> tuple[ProcessedEventQuerySet, bool]:
        """See `ModelAdmin.get_search_results`."""
        term = search_term.strip()
        return (found(queryset, term) if term else queryset), False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """See `ModelAdmin.changelist_view`."""
        # Called by the template, where there is one to show it.
        glance = partial(look, self.get_queryset(request), datetime.fromtimestamp(conf.clock()(), UTC))
        return super().changelist_view(request, {"glance": glance, **(extra_context or {})})

    @admin.display(description=gettext_lazy("status"), ordering="status")
    def state(self, event: ProcessedEvent) -> str:
        """The status, in its colour."""
        return badge(event.status)

    @admin.display(description=gettext_lazy("received at"), ordering="received_at")
    def received(self, event: ProcessedEvent) -> str | None:
        """When it was accepted, to the second."""
        return to_the_second(event.received_at)

    @admin.display(description=gettext_lazy("due at"), ordering="due_at")
    def due(self, event: ProcessedEvent) -> str:
        """When it is tried, or when its worker's lease ends, to the second."""
        return self._or_empty(to_the_second(event.due_at))

    @admin.display(description=gettext_lazy("last error"))
    def error(self, event: ProcessedEvent) -> str | None:
        """The begin of the last error."""
        return event.last_error and truncatechars(event.last_error, MAX_ERROR)

    # One event

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **keywords: Any) -> Any:
        """See `ModelAdmin.render_change_form`."""
        event = self.get_queryset(request).filter(pk=context["original"].pk)
        context |= {
            "may_run_now": self.has_requeue_permission(request) and event.waiting().exists(),
            "may_requeue": self.has_requeue_permission(request) and event.requeuable().exists(),
            "may_mark_dead": self.has_mark_dead_permission(request) and event.unheld().exists(),
            "checkbox": ACTION_CHECKBOX_NAME,
        }
        return super().render_change_form(request, context, *args, **keywords)

    @admin.display(description=gettext_lazy("object"))
    def about(self, event: ProcessedEvent) -> str:
        """The id of the object that it is about."""
        return self._or_empty(event.object_key)

    @admin.display(description=gettext_lazy("created"))
    def happened(self, event: ProcessedEvent) -> str:
        """When it happened, as the platform says."""
        # It may be the last second of the year 9999, which not every time zone has.
        return f"{event.event.created_at:%Y-%m-%d %H:%M:%S} UTC"

    @admin.display(description=gettext_lazy("settled at"))
    def settled(self, event: ProcessedEvent) -> str:
        """When it was finished, to the second."""
        return self._or_empty(to_the_second(event.settled_at))

    @admin.display(description=gettext_lazy("finished handlers"))
    def handlers(self, event: ProcessedEvent) -> str:
        """The handlers that will not run again."""
        return self._or_empty(handlers_list(event))

    @admin.display(description=gettext_lazy("history"))
    def attempts_so_far(self, event: ProcessedEvent) -> str:
        """The attempts that have ended, and what went wrong in them."""
        return self._or_empty(attempts_table(event))

    @admin.display(description=gettext_lazy("payload"))
    def payload(self, event: ProcessedEvent) -> Any:
        """The body, or when it was deleted; above it, why the event is unreadable."""
        if event.scrubbed_at is not None:
            shown = _("deleted: %(moment)s") % {"moment": to_the_second(event.scrubbed_at)}
        else:
            shown = payload_text(event, self._url_of("payload", event))
        return format_html("{}{}", unreadable_note(event), shown)

    def _url_of(self, view: str, event: ProcessedEvent) -> str:
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_{view}"
        return reverse(name, args=[event.pk], current_app=self.admin_site.name)

    def _or_empty(self, shown: Any) -> str:
        return shown or self.get_empty_value_display()

    # What can be done

    @admin.action(permissions=["requeue"], description=gettext_lazy("Requeue selected events"))
    def requeue(self, request: HttpRequest, queryset: ProcessedEventQuerySet) -> HttpResponse | None:
        """Bring what is failed, ignored or dead back to the handlers, once it was confirmed."""
        question = Question(
            action="requeue",
            title=_("Requeue events?"),
            consequence=_(
                "An event that is requeued is handled anew at once, with all attempts before it. Handlers that have "
                "succeeded do not run again."
            ),
            answer=_("Yes, requeue"),
            done=_("Requeued."),
            events=queryset,
            eligible=queryset.requeuable(),
        )
        return self._do(
            request,
            question,
            queryset.requeue,
            lambda count: ngettext("%d event was requeued.", "%d events were requeued.", count),
        )

    @admin.action(permissions=["mark_dead"], description=gettext_lazy("Mark selected events dead"))
    def mark_dead(self, request: HttpRequest, queryset: ProcessedEventQuerySet) -> HttpResponse | None:
        """Give up what waits, once it was confirmed."""
        question = Question(
            action="mark_dead",
            title=_("Mark events dead?"),
            consequence=_(
                "A dead event is not tried any more, and lets pass what waits behind it. It can be requeued later."
            ),
            answer=_("Yes, mark dead"),
            done=_("Marked dead."),
            events=queryset,
            eligible=queryset.unheld(),
        )
        return self._do(
            request,
            question,
            queryset.mark_dead,
            lambda count: ngettext("%d event was marked dead.", "%d events were marked dead.", count),
        )

    def _do(
        self,
        request: HttpRequest,
        question: Question,
        change: Callable[[], int],
        said: Callable[[int], str],
    ) -> HttpResponse | None:
        if not is_confirmed(request):
            return ask(self, request, question)
        events = list(question.eligible.only("event_id", "type"))
        # First: where a server's time-out cuts off what follows, it must be known who began it.
        LogEntry.objects.log_actions(request.user.pk, events, CHANGE, question.done)
        changed = change()
        webhooks.wake()
        self.message_user(request, said(changed) % changed, messages.SUCCESS if changed else messages.WARNING)
        return None

    def get_urls(self) -> list[URLPattern]:
        """See `ModelAdmin.get_urls`."""
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        view = self.admin_site.admin_view
        run_now = path("<path:object_id>/run-now/", view(self.run_now_view), name=f"{name}_run_now")
        payload = path("<path:object_id>/payload/", view(self.payload_view), name=f"{name}_payload")
        return [run_now, payload, *super().get_urls()]

    @method_decorator(require_safe)
    def payload_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Download a payload, exactly as it was sent: for those who may see the event."""
        event = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, event):
            raise PermissionDenied
        if event is None or event.scrubbed_at is not None:
            raise Http404
        filename = re.sub(r"[^\w.-]", "_", event.event_id)[:MAX_FILENAME] + ".json"
        headers = {
            "Content-Disposition": content_disposition_header(as_attachment=True, filename=filename),
            # What was sent must not run as a page of this site, whatever a browser takes it for.
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "X-Content-Type-Options": "nosniff",
        }
        return HttpResponse(body_bytes(event.body), content_type="application/json", headers=headers)

    @method_decorator(require_POST)
    def run_now_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Have an event that waits for its time tried now."""
        event = self.get_object(request, unquote(object_id))
        if not (self.has_view_permission(request, event) and self.has_requeue_permission(request)):
            raise PermissionDenied
        if event is None:
            raise Http404
        if self.get_queryset(request).filter(pk=event.pk).waiting().exists():
            ProcessedEvent.objects.filter(pk=event.pk).make_due()
            self.log_change(request, event, _("Made due."))
            webhooks.wake()
            self.message_user(request, _("The event is due now."), messages.SUCCESS)
        else:
            self.message_user(request, _("The event does not wait to be tried."), messages.WARNING)
        return HttpResponseRedirect(self._url_of("change", event))

    # Who may

    def has_requeue_permission(self, request: HttpRequest) -> bool:
        """Whether the user may requeue events, and have them tried now."""
        allowed: bool = request.user.has_perm("envoyou_django.requeue_processedevent")
        return allowed

    def has_mark_dead_permission(self, request: HttpRequest) -> bool:
        """Whether the user may give events up."""
        allowed: bool = request.user.has_perm("envoyou_django.mark_dead_processedevent")
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
