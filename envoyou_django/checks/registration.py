"""Registers the checks with Django."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

from django.apps import apps
from django.core import checks

from envoyou_django.checks.configuration import are_settings_usable

__all__ = ["TAG", "register"]

TAG: Final = "envoyou"
"""`manage.py check --tag envoyou` runs only these checks."""


def register(
    check: Callable[[], Iterator[checks.CheckMessage]],
    *tags: str,
    deploy: bool = False,
    requires_settings: bool = True,
) -> None:
    """Register a check with Django.

    Args:
        check: yields a message for each problem.
        tags: tags in addition to `TAG`.
        deploy: run the check only with `--deploy`.
        requires_settings: skip the check if the setting `ENVOYOU` is invalid, or the secret is missing.
    """

    def run(app_configs: Collection[Any] | None, **_: Any) -> list[checks.CheckMessage]:
        is_selected = app_configs is None or apps.get_app_config("envoyou_django") in app_configs
        if not is_selected or (requires_settings and not are_settings_usable()):
            return []
        return list(check())

    checks.register(run, TAG, *tags, deploy=deploy)
