"""The URL patterns of `envoyou_django.urls` for ASGI: storing an event blocks no thread."""

from __future__ import annotations

from envoyou_django.urls import app_name, patterns_for
from envoyou_django.views import areceive

__all__ = ["app_name", "urlpatterns"]

urlpatterns = patterns_for(areceive)
