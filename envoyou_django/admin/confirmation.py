"""The page that asks for confirmation before an action on events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.http import HttpRequest
from django.template.response import TemplateResponse

from envoyou_django.admin.formatting import badge
from envoyou_django.models import ProcessedEventQuerySet

__all__ = ["Confirmation", "confirmation_page", "is_confirmed"]

CONFIRMED: Final = "confirmed"
"""The name of the form field."""

MAX_LISTED: Final = 20
"""Events that the page lists; the others are counted."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """An action that needs confirmation.

    Attributes:
        action: the name of the action.
        title: the question to the user.
        consequence: what the action does.
        button: the text of the button.
        log_message: the text for the history of each event.
        events: the selected events.
        eligible: those of them that the action would change.
    """

    action: str
    title: str
    consequence: str
    button: str
    log_message: str
    events: ProcessedEventQuerySet
    eligible: ProcessedEventQuerySet


def is_confirmed(request: HttpRequest) -> bool:
    """Return whether the user has confirmed the action."""
    return CONFIRMED in request.POST


def confirmation_page(
    model_admin: admin.ModelAdmin, request: HttpRequest, confirmation: Confirmation
) -> TemplateResponse:
    """Return the page whose form repeats the action for the same selection, confirmed."""
    eligible = confirmation.eligible.count()
    across = request.POST.get("select_across", "0")
    listed = confirmation.eligible.defer("body", "history")[:MAX_LISTED]
    context: Mapping[str, Any] = {
        **model_admin.admin_site.each_context(request),
        "title": confirmation.title,
        "opts": model_admin.opts,
        "media": model_admin.media,
        "confirmation": confirmation,
        "eligible": eligible,
        "unchanged": confirmation.events.count() - eligible,
        "listed": [(event, badge(event.status)) for event in listed],
        "unlisted": max(0, eligible - MAX_LISTED),
        "confirmed": CONFIRMED,
        "checkbox": ACTION_CHECKBOX_NAME,
        "across": across,
        "cancel_url": request.get_full_path(),
        # If all events are selected, the admin needs one key to run the action.
        "keys": request.POST.getlist(ACTION_CHECKBOX_NAME)[: 1 if across == "1" else None],
    }
    return TemplateResponse(request, "envoyou_django/admin/confirmation.html", context)
