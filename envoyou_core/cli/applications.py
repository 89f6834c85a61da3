"""Finds the application of `envoyou`: `--app`, else `ENVOYOU_APP`, else `[tool.envoyou] app` in pyproject.toml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import typer

from envoyou_core.errors import ConfigurationError
from envoyou_core.references import Reference, import_object
from envoyou_core.webhooks import Webhooks

__all__ = ["load"]

DEFAULT_NAME: Final = "webhooks"

HOW: Final = (
    "name the application: envoyou --app hooks:webhooks COMMAND, the variable ENVOYOU_APP, or in pyproject.toml "
    '[tool.envoyou] app = "hooks:webhooks"'
)


def load(reference: Reference | None) -> Webhooks:
    """Import the application and return its `Webhooks`.

    Raises:
        BadParameter: no application is named.
        ConfigurationError: it cannot be imported, or is something else.
    """
    if reference is None:
        raise typer.BadParameter(HOW)
    return _webhooks_in(import_object(reference, default_name=DEFAULT_NAME, how=HOW), reference.text)


def _webhooks_in(value: object, text: str) -> Webhooks:
    if isinstance(value, Webhooks):
        return value
    # An object that stands for `Webhooks` which are made later, such as that of a Django project.
    make = getattr(type(value), "__envoyou_webhooks__", None)
    if make is not None:
        made = make(value)
        assert isinstance(made, Webhooks)  # noqa: S101 - what the method is for
        return made
    # A Flask app.
    extensions = getattr(value, "extensions", None)
    attached = extensions.get("envoyou") if isinstance(extensions, Mapping) else None
    if isinstance(attached, Mapping):
        several = list(dict.fromkeys(attached.values()))
        if len(several) == 1 and isinstance(several[0], Webhooks):
            return several[0]
        raise ConfigurationError(
            f"the app {text!r} has several Webhooks ({', '.join(sorted(attached))}): use `flask envoyou --name NAME`"
        )
    raise ConfigurationError(f"expected a Webhooks object at {text!r}, got {type(value).__name__}")
