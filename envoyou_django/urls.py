"""URL patterns to include: `path("webhooks/envoyou", include("envoyou_django.urls"))`.

Without a slash at the end of the route, the URL matches with and without one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.apps import apps
from django.urls import re_path

from envoyou_core import ConfigurationError
from envoyou_django.views import receive

__all__ = ["app_name", "patterns_for", "urlpatterns"]


def patterns_for(view: Callable[..., Any]) -> list[Any]:
    """Make the URL patterns for one of the views.

    Raises:
        ConfigurationError: the app is not installed, so the events could not be stored.
    """
    if apps.ready and not apps.is_installed("envoyou_django"):
        raise ConfigurationError(
            "the URLs of envoyou_django are included, but the app is not installed: "
            'add "envoyou_django" to INSTALLED_APPS'
        )
    # Match with and without a trailing slash, because senders treat a redirect as a failure.
    return [re_path(r"^(?:/)?$", view, name="receive")]


app_name = "envoyou"
urlpatterns = patterns_for(receive)
