"""The admin of events."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import SEARCH_VAR
from django.core.exceptions import BadRequest, PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import truncatechars
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST, require_safe

from envoyou_django import conf, webhooks
from envoyou_django.admin.actions import ACTIONS, EventAction
from envoyou_django.admin.attention import AttentionFilter
from envoyou_django.admin.bulk import Progress, advance
from envoyou_django.admin.confirmation import confirmation_page, progress_page
from envoyou_django.admin.download import payload_download
from envoyou_django.admin.formatting import (
    attempts_table,
    badge,
    handlers_list,
    headers_list,
    labelled,
    payload_text,
    to_the_second,
    unreadable_note,
    with_zone,
)
from envoyou_django.admin.lists import (
    BoundedPaginator,
    DayFilter,
    EventList,
    InboxFilter,
    ReceivedFilter,
    ValuesFilter,
    search,
)
from envoyou_django.admin.summary import summarize
from envoyou_django.connections import outside_transactions
from envoyou_django.models import ProcessedEvent, ProcessedEventQuerySet

__all__ = ["ProcessedEventAdmin"]

MAX_ERROR = 80
"""Characters of an error in the list."""


@admin.register(ProcessedEvent)
class ProcessedEventAdmin(admin.ModelAdmin):
    """A read-only view of the events, with actions to requeue events, mark them dead and run them now."""

    list_display = ("event_id", "state", "type", "ended_attempts", "due_in_list", "received_in_list", "error")
    list_filter = (
        "status",
        AttentionFilter,
        DayFilter,
        ReceivedFilter,
        ("type", ValuesFilter),
        ("name", InboxFilter),
    )
    search_fields = ("event_id", "object_key")
    ordering = ("-id",)
    # The other columns have no index that serves every filter.
    sortable_by = ("received_in_list",)
    paginator = BoundedPaginator
    list_per_page = 50
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    actions = ("requeue", "run_now", "mark_dead")
    fieldsets = (
        (None, {"fields": (("event_id", "type"), ("object_id", "created_at"))}),
        (
            gettext_lazy("Processing"),
            {
                "fields": (
                    ("state", "attempts", "crashes"),
                    ("received", "due", "settled"),
                    "waits_for",
                    "handlers",
                    "last_error",
                    "attempt_history",
                )
            },
        ),
        (gettext_lazy("Payload"), {"fields": ("payload", "kept_headers")}),
        (gettext_lazy("Origin"), {"fields": (("name", "tenant", "webhook_id"),)}),
    )
    readonly_fields = (
        "object_id",
        "attempt_history",
        "due",
        "handlers",
        "created_at",
        "kept_headers",
        "payload",
        "received",
        "settled",
        "state",
    )

    class Media:
        """The style sheet."""

        css = {"all": ["envoyou_django/admin.css"]}

    # List

    def get_changelist(self, request: HttpRequest, **keywords: Any) -> type[EventList]:
        """Return the list without large columns."""
        return EventList

    def get_search_results(
        self, request: HttpRequest, queryset: ProcessedEventQuerySet, search_term: str
    ) -> tuple[ProcessedEventQuerySet, bool]:
        """Find events by their id or by the id of their object."""
        term = search_term.strip()
        return (search(queryset, term) if term else queryset), False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Return the list with a summary above it."""
        # The template calls it, so that responses without the summary do not query it.
        get_summary = partial(summarize, self.get_queryset(request), conf.current_time())
        return super().changelist_view(request, {"get_summary": get_summary, **(extra_context or {})})

    @admin.display(description=gettext_lazy("status"))
    def state(self, event: ProcessedEvent) -> str:
        """Return the status as a badge."""
        return badge(event.status)

    @admin.display(description=gettext_lazy("attempts"))
    def ended_attempts(self, event: ProcessedEvent) -> str:
        """Return the number of ended attempts."""
        return labelled(_("attempts"), event.attempts)

    @admin.display(description=gettext_lazy("due at"))
    def due_in_list(self, event: ProcessedEvent) -> str:
        """Return when the event's next attempt is due, or when its worker's lease expires."""
        moment = to_the_second(event.due_at)
        return labelled(_("due at"), moment) if moment else self._empty_cell()

    @admin.display(description=gettext_lazy("received at"), ordering="received_at")
    def received_in_list(self, event: ProcessedEvent) -> str:
        """Return when the event was received."""
        return labelled(_("received at"), to_the_second(event.received_at))

    @admin.display(description=gettext_lazy("last error"))
    def error(self, event: ProcessedEvent) -> str:
        """Return the start of the last error."""
        return truncatechars(event.last_error, MAX_ERROR) if event.last_error else self._empty_cell()

    def _empty_cell(self) -> str:
        return format_html('<span class="envoyou-empty">{}</span>', self.get_empty_value_display())

    # Page of an event

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **keywords: Any) -> Any:
        """Render the page with the buttons that the event's status and the user's permissions allow."""
        event = self.get_queryset(request).filter(pk=context["original"].pk)
        context |= {
            "may_run_now": self.has_requeue_permission(request) and event.waiting().exists(),
            "may_requeue": self.has_requeue_permission(request) and event.requeuable().exists(),
            "may_mark_dead": self.has_mark_dead_permission(request) and event.unheld().exists(),
            "checkbox": ACTION_CHECKBOX_NAME,
        }
        return super().render_change_form(request, context, *args, **keywords)

    @admin.display(description=gettext_lazy("object"))
    def object_id(self, event: ProcessedEvent) -> str:
        """Return the id of the event's object, as a link to all events about it."""
        if event.object_key in {None, ""}:
            return self.get_empty_value_display()
        return format_html(
            '<a href="{}?{}"><bdi>{}</bdi></a>',
            self._reverse("changelist"),
            urlencode({SEARCH_VAR: event.object_key}),
            event.object_key,
        )

    @admin.display(description=gettext_lazy("created"))
    def created_at(self, event: ProcessedEvent) -> str | None:
        """Return when the event was created on the platform."""
        return with_zone(event.event.created_at)

    @admin.display(description=gettext_lazy("received at"))
    def received(self, event: ProcessedEvent) -> str | None:
        """Return when the event was received."""
        return with_zone(event.received_at)

    @admin.display(description=gettext_lazy("due at"))
    def due(self, event: ProcessedEvent) -> str:
        """Return when the event's next attempt is due, or when its worker's lease expires."""
        return self._or_empty(with_zone(event.due_at))

    @admin.display(description=gettext_lazy("settled at"))
    def settled(self, event: ProcessedEvent) -> str:
        """Return when the event was settled."""
        return self._or_empty(with_zone(event.settled_at))

    @admin.display(description=gettext_lazy("finished handlers"))
    def handlers(self, event: ProcessedEvent) -> str:
        """Return the handlers that will not run again."""
        return self._or_empty(handlers_list(event))

    @admin.display(description=gettext_lazy("history"))
    def attempt_history(self, event: ProcessedEvent) -> str:
        """Return the ended attempts with their errors."""
        return self._or_empty(attempts_table(event))

    @admin.display(description=gettext_lazy("payload"))
    def payload(self, event: ProcessedEvent) -> Any:
        """Return the payload, or when it was deleted, preceded by the reason if the event is unreadable."""
        if event.scrubbed_at is not None:
            text = format_html("{}: {}", _("deleted"), with_zone(event.scrubbed_at))
        else:
            text = payload_text(event, self._url_of("payload", event))
        return format_html("{}{}", unreadable_note(event), text)

    @admin.display(description=gettext_lazy("kept headers"))
    def kept_headers(self, event: ProcessedEvent) -> str:
        """Return the headers of the request that were kept."""
        return self._or_empty(headers_list(event))

    def _url_of(self, view: str, event: ProcessedEvent) -> str:
        return self._reverse(view, event.pk)

    def _reverse(self, view: str, *arguments: object) -> str:
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_{view}"
        return reverse(name, args=arguments, current_app=self.admin_site.name)

    def _or_empty(self, value: Any) -> str:
        return value or self.get_empty_value_display()

    # Actions

    @admin.action(permissions=["requeue"], description=gettext_lazy("Requeue selected events"))
    def requeue(self, request: HttpRequest, queryset: ProcessedEventQuerySet) -> HttpResponse:
        """Requeue failed, ignored and dead events after confirmation."""
        return self._confirm(request, ACTIONS["requeue"], queryset)

    @admin.action(permissions=["requeue"], description=gettext_lazy("Run selected events now"))
    def run_now(self, request: HttpRequest, queryset: ProcessedEventQuerySet) -> HttpResponse:
        """Make events that wait for their next attempt due now, after confirmation."""
        return self._confirm(request, ACTIONS["run_now"], queryset)

    @admin.action(permissions=["mark_dead"], description=gettext_lazy("Mark selected events dead"))
    def mark_dead(self, request: HttpRequest, queryset: ProcessedEventQuerySet) -> HttpResponse:
        """Mark unfinished events dead after confirmation."""
        return self._confirm(request, ACTIONS["mark_dead"], queryset)

    def _confirm(self, request: HttpRequest, action: EventAction, rows: ProcessedEventQuerySet) -> HttpResponse:
        return confirmation_page(self, request, action, rows, action.operation.eligible(rows, conf.current_time()))

    @outside_transactions
    @method_decorator(require_POST)
    def apply_view(self, request: HttpRequest) -> HttpResponse:
        """Carry out a confirmed action, or a part of it if there are many events.

        The view is not part of the request's transaction, so that each batch is committed when it is done.
        """
        name = request.POST.get("action", "")
        if not self.has_view_permission(request) or name not in self.get_actions(request) or name not in ACTIONS:
            raise PermissionDenied
        action = ACTIONS[name]
        progress = Progress.of(request.POST)
        progress = advance(self._selected(request), action, progress, request.user.pk, conf.current_time())
        webhooks.wake()
        if not progress.is_finished:
            return progress_page(self, request, action, progress)
        level = messages.SUCCESS if progress.done else messages.WARNING
        self.message_user(request, action.result % progress.done, level)
        return HttpResponseRedirect(f"{self._reverse('changelist')}?{request.GET.urlencode()}".rstrip("?"))

    def _selected(self, request: HttpRequest) -> ProcessedEventQuerySet:
        try:
            rows = self.get_changelist_instance(request).queryset
        except IncorrectLookupParameters as error:
            raise BadRequest(str(error)) from error
        if request.POST.get("select_across") == "1":
            return rows
        try:
            return rows.filter(pk__in=request.POST.getlist(ACTION_CHECKBOX_NAME))
        except ValueError as error:
            raise BadRequest("a key must be a number") from error

    def get_urls(self) -> list[URLPattern]:
        """Return the URLs of the admin, with those for actions and for downloading a payload."""
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        view = self.admin_site.admin_view
        run_now = path("<path:object_id>/run-now/", view(self.run_now_view), name=f"{name}_run_now")
        payload = path("<path:object_id>/payload/", view(self.payload_view), name=f"{name}_payload")
        apply = path("apply/", view(self.apply_view), name=f"{name}_apply")
        return [apply, run_now, payload, *super().get_urls()]

    @method_decorator(require_safe)
    def payload_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Return the payload exactly as sent, to users who may view the event."""
        event = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, event):
            raise PermissionDenied
        if event is None or event.scrubbed_at is not None:
            raise Http404
        return payload_download(event.body, event.event_id)

    @method_decorator(require_POST)
    def run_now_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Make an event that waits for its next attempt due now."""
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
            self.message_user(request, _("The event is not waiting for an attempt."), messages.WARNING)
        return HttpResponseRedirect(self._url_of("change", event))

    # Permissions

    def has_requeue_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may requeue events and run them now."""
        allowed: bool = request.user.has_perm("envoyou_django.requeue_processedevent")
        return allowed

    def has_mark_dead_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may mark events dead."""
        allowed: bool = request.user.has_perm("envoyou_django.mark_dead_processedevent")
        return allowed

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:
        """Return false, because only the platform creates events."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Return false, because events are never edited."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Return false, because a redelivery of a deleted event would be handled again."""
        return False
