"""`envoyou_django.urls` for projects under ASGI: no thread waits while an event is stored."""

from __future__ import annotations

from envoyou_django.urls import app_name, patterns_for
from envoyou_django.views import areceive

__all__ = ["app_name", "urlpatterns"]

urlpatterns = patterns_for(areceive)
