"""URL patterns of the health probes, to include: `path("health/", include("envoyou_django.health_urls"))`.

They match `live`, `ready` and `worker`, with and without a slash at the end.
"""

from __future__ import annotations

from django.urls import re_path

from envoyou_django.views import health

__all__ = ["app_name", "urlpatterns"]

app_name = "envoyou_health"
urlpatterns = [re_path(r"^(?P<probe>live|ready|worker)/?$", health, name="probe")]
