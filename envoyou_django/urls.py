"""`path("webhooks/envoyou", include("envoyou_django.urls"))`, without a slash at the end: both forms then match."""

from __future__ import annotations

from django.urls import re_path

from envoyou_django.views import receive

__all__ = ["app_name", "urlpatterns"]

app_name = "envoyou"
urlpatterns = [
    # Both are matched: a sender takes a redirect for a failure.
    re_path(r"^(?:/)?$", receive, name="receive"),
]
