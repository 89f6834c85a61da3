"""The page that asks once more before an action on events."""

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

__all__ = ["Question", "ask", "is_confirmed"]

CONFIRMED: Final = "confirmed"

SHOWN: Final = 20
"""Events that are named one by one; of the others it is said how many they are."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        action: the name of the action.
        title: the question.
        consequence: what will have happened.
        answer: what the button says.
        done: what the history of an event says then.
        events: what was selected.
        eligible: those of them that the action would change.
    """

    action: str
    title: str
    consequence: str
    answer: str
    done: str
    events: ProcessedEventQuerySet
    eligible: ProcessedEventQuerySet


def is_confirmed(request: HttpRequest) -> bool:
    """Whether the question was asked, and answered by yes."""
    return CONFIRMED in request.POST


def ask(model_admin: admin.ModelAdmin, request: HttpRequest, question: Question) -> TemplateResponse:
    """The page, whose form sends the action once more, for the same selection and confirmed."""
    eligible = question.eligible.count()
    across = request.POST.get("select_across", "0")
    context: Mapping[str, Any] = {
        **model_admin.admin_site.each_context(request),
        "title": question.title,
        "opts": model_admin.opts,
        "media": model_admin.media,
        "question": question,
        "eligible": eligible,
        "others": question.events.count() - eligible,
        "shown": [(event, badge(event.status)) for event in question.eligible.defer("body", "history")[:SHOWN]],
        "further": max(0, eligible - SHOWN),
        "confirmed": CONFIRMED,
        "checkbox": ACTION_CHECKBOX_NAME,
        "across": across,
        "back": request.get_full_path(),
        # Where everything was selected, one key is enough for the admin to take the action up.
        "keys": request.POST.getlist(ACTION_CHECKBOX_NAME)[: 1 if across == "1" else None],
    }
    return TemplateResponse(request, "envoyou_django/admin/confirmation.html", context)
