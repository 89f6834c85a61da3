"""Finds the application under test: in pytest's configuration, a fixture, the environment or a Django project."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

import pytest

from envoyou_core import ConfigurationError
from envoyou_core.references import ApplicationImportError, Reference, find_reference, import_object

__all__ = ["find_application"]

HOW: Final = (
    "name the application that receives webhooks in one of these ways: a fixture `app` or `envoyou_app` that returns "
    'it; in pytest\'s configuration, envoyou_app = "app:app" (or "app:create_app()"); the variable ENVOYOU_APP; in '
    'pyproject.toml, [tool.envoyou] app = "hooks:webhooks"; or, in a Django project, DJANGO_SETTINGS_MODULE with '
    '"envoyou_django" in INSTALLED_APPS'
)


def find_application(request: pytest.FixtureRequest) -> object:
    """Return the application. The test fails with the remedy if there is none."""
    __tracebackhide__ = True
    if text := str(request.config.getini("envoyou_app")):
        return _load(Reference(text, request.config.rootpath), default_name="app")
    try:
        return request.getfixturevalue("app")
    except pytest.FixtureLookupError as error:
        if error.argname != "app":
            raise
    try:
        reference = find_reference(None)
    except ConfigurationError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    if reference is not None:
        return _load(reference, default_name="webhooks")
    if _is_django_project():
        from envoyou_django import webhooks

        return webhooks
    pytest.fail(f"no application was found: {HOW}", pytrace=False)


def _load(reference: Reference, *, default_name: str) -> object:
    __tracebackhide__ = True
    text = reference.text.removesuffix("()")
    try:
        value: Any = import_object(Reference(text, reference.folder), default_name=default_name, how=HOW)
    except ApplicationImportError as error:
        raise pytest.fail.Exception(f"{error.shown}\n{error}", pytrace=False) from None
    except ConfigurationError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    return value() if text != reference.text else value


def _is_django_project() -> bool:
    if "django" not in sys.modules and not os.environ.get("DJANGO_SETTINGS_MODULE"):
        return False
    from django.conf import settings

    if not settings.configured and not os.environ.get("DJANGO_SETTINGS_MODULE"):
        return False
    from django.apps import apps

    return bool(apps.ready and apps.is_installed("envoyou_django"))
