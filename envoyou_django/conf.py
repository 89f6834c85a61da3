"""The setting `ENVOYOU`: one dict, read when it is needed and never kept.

Its names are the keywords of `Webhooks` in upper case; `secret` is `WEBHOOK_SECRET`. There is no `INBOX`: events are
kept in the model `ProcessedEvent`, and `DATABASE_ROUTERS` say on which database.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from django.conf import settings
from django.utils.module_loading import import_string

from envoyou_core import ConfigurationError
from envoyou_core.settings import read_settings

__all__ = ["SETTING", "clock", "handlers_module", "webhooks_keywords"]

SETTING: Final = "ENVOYOU"
HANDLERS_MODULE: Final = "HANDLERS_MODULE"


def handlers_module() -> str:
    """The module in which each app keeps its handlers: `HANDLERS_MODULE`, by default `webhooks`.

    Raises:
        ConfigurationError: it is no module's name, or another setting has a name that nobody knows.
    """
    _keywords()
    name = _given().get(HANDLERS_MODULE, "webhooks")
    if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
        raise ConfigurationError(f'{SETTING}["{HANDLERS_MODULE}"] is the name of a module, not {name!r}')
    return name


def clock() -> Callable[[], float]:
    """What tells the time, in epoch seconds: `CLOCK`, by default the system's.

    Raises:
        ConfigurationError: a setting has a name that nobody knows, or a value of the wrong kind.
    """
    found: Callable[[], float] = _keywords().get("clock", time.time)
    return found


def webhooks_keywords() -> dict[str, Any]:
    """The keyword arguments of `Webhooks` that the setting stands for.

    Raises:
        ConfigurationError: there is no secret, a name that nobody knows, or a value of the wrong kind.
    """
    keywords = _keywords()
    if keywords.get("secret") is None:
        raise ConfigurationError(f'there is no webhook secret: set {SETTING} = {{"WEBHOOK_SECRET": ...}}')
    return {**keywords, "secret": _secret(keywords["secret"])}


def _given() -> Mapping[str, Any]:
    given = getattr(settings, SETTING, {})
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"the setting {SETTING} is a dict, not {type(given).__name__}")
    return given


def _keywords() -> dict[str, Any]:
    keywords = read_settings(_given(), others=frozenset({HANDLERS_MODULE}))
    if "inbox" in keywords:
        raise ConfigurationError(
            f'{SETTING}["INBOX"] has no use in Django: events are kept in the model ProcessedEvent, and '
            "DATABASE_ROUTERS say on which database"
        )
    return keywords


def _secret(secret: object) -> object:
    if not isinstance(secret, str) or not _is_dotted_path(secret):
        return secret
    # Never a secret after all when it cannot be imported: whoever can read a misspelt path could sign with it.
    try:
        found = import_string(secret)
    except Exception as error:
        # Neither the value nor the error's text, which holds it: it may have been meant as a secret.
        raise ConfigurationError(
            f'{SETTING}["WEBHOOK_SECRET"] looks like the dotted path of a callable, and importing it ended in '
            f"{type(error).__name__}; a secret of that form is given in a list"
        ) from None
    if not callable(found):
        raise ConfigurationError(f'{SETTING}["WEBHOOK_SECRET"] is a dotted path, but not that of a callable')
    return found


def _is_dotted_path(text: str) -> bool:
    return "." in text and all(part.isidentifier() for part in text.split("."))
