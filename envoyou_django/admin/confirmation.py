"""The pages of an action on events: the confirmation before it, and its progress."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.http import HttpRequest
from django.template.response import TemplateResponse

from envoyou_core.inbox import COUNTED
from envoyou_django.admin.actions import EventAction
from envoyou_django.admin.bulk import Progress
from envoyou_django.admin.formatting import badge
from envoyou_django.models import ProcessedEventQuerySet

__all__ = ["confirmation_page", "progress_page"]

MAX_LISTED: Final = 20
"""Events that the page lists; the others are counted, up to `COUNTED`."""


def confirmation_page(
    model_admin: admin.ModelAdmin,
    request: HttpRequest,
    action: EventAction,
    events: ProcessedEventQuerySet,
    eligible: ProcessedEventQuerySet,
) -> TemplateResponse:
    """Return the page that asks for confirmation of an action.

    Args:
        model_admin: the admin of the events.
        request: the request with the selection.
        action: the action.
        events: the selected events.
        eligible: those of them that the action would change.
    """
    count, selected = (rows.order_by()[: COUNTED + 1].count() for rows in (eligible, events))
    listed = eligible.defer("body", "history")[:MAX_LISTED]
    context = {
        "title": action.title,
        "eligible": count,
        "counted": COUNTED,
        "is_bounded": count > COUNTED,
        "unchanged": selected - count if selected <= COUNTED else 0,
        "listed": [(event, badge(event.status)) for event in listed],
        "unlisted": max(0, count - MAX_LISTED),
        "progress": Progress.begin(eligible),
    }
    return _page(model_admin, request, action, "confirmation", context)


def progress_page(
    model_admin: admin.ModelAdmin, request: HttpRequest, action: EventAction, progress: Progress
) -> TemplateResponse:
    """Return the page that shows how far an action is, and continues it."""
    return _page(model_admin, request, action, "progress", {"title": action.running, "progress": progress})


def _page(
    model_admin: admin.ModelAdmin, request: HttpRequest, action: EventAction, name: str, context: dict[str, Any]
) -> TemplateResponse:
    across = request.POST.get("select_across", "0")
    query = request.GET.urlencode()
    context |= {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "media": model_admin.media,
        "action": action,
        "checkbox": ACTION_CHECKBOX_NAME,
        "across": across,
        "query": f"?{query}" if query else "",
        # If all events are selected, the keys do not matter.
        "keys": [] if across == "1" else request.POST.getlist(ACTION_CHECKBOX_NAME),
    }
    return TemplateResponse(request, f"envoyou_django/admin/{name}.html", context)
