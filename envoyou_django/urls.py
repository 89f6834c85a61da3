"""`path("webhooks/envoyou", include("envoyou_django.urls"))`, without a slash at the end: both forms then match."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.urls import re_path

from envoyou_django.views import receive

__all__ = ["app_name", "patterns_for", "urlpatterns"]


def patterns_for(view: Callable[..., Any]) -> list[Any]:
    """The URL patterns of one of the views."""
    # Both forms are matched: a sender takes a redirect for a failure.
    return [re_path(r"^(?:/)?$", view, name="receive")]


app_name = "envoyou"
urlpatterns = patterns_for(receive)
