"""Checks of the URLs that receive webhooks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from django.conf import settings
from django.core import checks
from django.db import connections
from django.utils.module_loading import import_string

from envoyou_django.checks.databases import inbox_alias
from envoyou_django.endpoints import Endpoint, endpoints

__all__ = ["check_urls"]

CSRF_MIDDLEWARE: Final = "django.middleware.csrf.CsrfViewMiddleware"
LOGIN_MIDDLEWARE: Final = "django.contrib.auth.middleware.LoginRequiredMiddleware"
LOGIN_DECORATORS: Final = "django.contrib.auth.decorators"
"""The module of `login_required`, `permission_required` and the like; the admin's decorator uses it as well."""


def check_urls() -> Iterator[checks.CheckMessage]:
    """Check that deliveries reach the view, without CSRF checks, a login or a redirect."""
    if not getattr(settings, "ROOT_URLCONF", None):
        return
    receiving = endpoints()
    if not receiving:
        yield checks.Warning(
            "No URL of this project receives webhooks.",
            hint='Add path("webhooks/envoyou", include("envoyou_django.urls")) to the URLconf. If a decorator wraps '
            "the view, it must use functools.wraps. If this project does not receive webhooks, silence this check.",
            id="envoyou.W001",
        )
    for endpoint in receiving:
        if endpoint.prefix.endswith("/"):
            yield checks.Warning(
                f"The URL {endpoint.prefix!r} receives webhooks only with its trailing slash. Without it, deliveries "
                "are redirected, which the platform counts as a failure.",
                hint="Remove the trailing slash from the path() that includes envoyou_django.urls, which then matches "
                "both forms.",
                id="envoyou.W002",
            )
        if endpoint.is_localized:
            yield checks.Warning(
                f"The URL {endpoint.prefix!r} receives webhooks inside i18n_patterns: it exists only with the prefix "
                "of a language, and without it, deliveries are redirected, which the platform counts as a failure.",
                hint="Move the path() that includes envoyou_django.urls out of i18n_patterns.",
                id="envoyou.W015",
            )
        if _requires_login(endpoint):
            yield checks.Error(
                f"The view at {endpoint.prefix!r} requires a login, so it would redirect every delivery to the login "
                "page.",
                hint="Remove login_required, permission_required or the like from this URL: its deliveries are "
                "authenticated by their signature.",
                id="envoyou.E008",
            )
        if lost := list(_lost_exemptions(endpoint)):
            yield checks.Error(
                f"The view at {endpoint.prefix!r} has lost its exemption from {' and '.join(lost)}, so it would reject "
                "every delivery.",
                hint="A decorator around the view does not keep its attributes. Use functools.wraps in it.",
                id="envoyou.E004",
            )


def _requires_login(endpoint: Endpoint) -> bool:
    view: Any = endpoint.view
    while view is not None:
        # Decorators copy the name of the module of the view, but not the globals of their own.
        if getattr(view, "__globals__", {}).get("__name__") == LOGIN_DECORATORS:
            return True
        view = getattr(view, "__wrapped__", None)
    return False


def _lost_exemptions(endpoint: Endpoint) -> Iterator[str]:
    view = endpoint.view
    if _is_installed(CSRF_MIDDLEWARE) and not getattr(view, "csrf_exempt", False):
        yield "CSRF protection"
    if _is_installed(LOGIN_MIDDLEWARE) and getattr(view, "login_required", True):
        yield "the login requirement"
    alias = inbox_alias()
    is_atomic = connections[alias].settings_dict.get("ATOMIC_REQUESTS")
    if is_atomic and alias not in getattr(view, "_non_atomic_requests", ()):
        yield "ATOMIC_REQUESTS"


def _is_installed(middleware: str) -> bool:
    """Return whether `middleware` or a subclass of it is installed.

    The names are compared, because importing `middleware` may fail if its app is not installed.
    """
    installed = [import_string(path) for path in settings.MIDDLEWARE]
    classes = [base for item in installed if isinstance(item, type) for base in item.__mro__]
    return any(f"{cls.__module__}.{cls.__qualname__}" == middleware for cls in classes)
