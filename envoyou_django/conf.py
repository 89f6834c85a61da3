"""The setting `ENVOYOU`: one dict, parsed once and again after a test has changed it. Secrets are read at each use.

Its names are the keywords of `Webhooks` in upper case; `secret` is `WEBHOOK_SECRET`. A name that is not in the dict is
read from the environment, with the prefix `ENVOYOU_`. There is no `INBOX`: events are stored in the model
`ProcessedEvent`, on the database that `DATABASE_ROUTERS` choose.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from importlib import import_module
from typing import Any, Final

from django.conf import settings
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from envoyou_core import ConfigurationError
from envoyou_core.adapter import MISSING_SECRET, SECRET_NAMES, above_environment, newest_secret, read_settings
from envoyou_core.adapter import written_secrets as secrets_in

__all__ = [
    "OWN_NAMES",
    "SETTING",
    "TaskQueue",
    "clock",
    "current_time",
    "handlers_module",
    "has_secret",
    "is_manual",
    "mails_admins",
    "signing_secret",
    "task_queue",
    "tasks_backend",
    "tasks_queue_name",
    "webhooks_keywords",
    "written_secrets",
]

SETTING: Final = "ENVOYOU"
HANDLERS_MODULE: Final = "HANDLERS_MODULE"
TASKS_BACKEND: Final = "TASKS_BACKEND"
TASKS_QUEUE: Final = "TASKS_QUEUE"
INBOX: Final = frozenset({"INBOX"})
ALERTS_MAIL_ADMINS: Final = "ALERTS_MAIL_ADMINS"
OWN_NAMES: Final = frozenset({HANDLERS_MODULE, TASKS_BACKEND, TASKS_QUEUE, ALERTS_MAIL_ADMINS})
"""Names that exist only in Django's setting."""


class TaskQueue(StrEnum):
    """A value of `HANDOFF` that names the project's own task queue."""

    DJANGO_TASKS = "django_tasks"
    CELERY = "celery"


IN_PROCESS: Final = ("auto", "thread")
MANUAL: Final = "manual"


def handlers_module() -> str:
    """Return the name of the module in which apps register their handlers: `HANDLERS_MODULE`, by default `webhooks`.

    Raises:
        ConfigurationError: it is not a module name, or another setting is invalid.
    """
    _keywords()
    name = _setting().get(HANDLERS_MODULE, "webhooks")
    if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
        raise ConfigurationError(f'{SETTING}["{HANDLERS_MODULE}"] must be the name of a module, got {name!r}')
    return name


def clock() -> Callable[[], float]:
    """Return the function that returns epoch seconds: `CLOCK`, by default the system's.

    Raises:
        ConfigurationError: a setting is unknown or of the wrong type.
    """
    function: Callable[[], float] = _keywords().get("clock", time.time)
    return function


def current_time() -> datetime:
    """Return the time by `clock`, in UTC."""
    return datetime.fromtimestamp(clock()(), UTC)


def task_queue() -> TaskQueue | None:
    """Return the task queue that `HANDOFF` names, if it names one.

    Raises:
        ConfigurationError: a setting is unknown or of the wrong type.
    """
    handoff = _keywords().get("handoff")
    return TaskQueue(handoff) if handoff in list(TaskQueue) else None


def tasks_backend() -> str:
    """Return the alias in `TASKS` of the backend to use: `TASKS_BACKEND`, by default `default`.

    Raises:
        ConfigurationError: it is not text.
    """
    return _own_text(TASKS_BACKEND)


def tasks_queue_name() -> str:
    """Return the queue of that backend: `TASKS_QUEUE`, by default `default`.

    Raises:
        ConfigurationError: it is not text.
    """
    return _own_text(TASKS_QUEUE)


def webhooks_keywords() -> dict[str, Any]:
    """Convert the setting to keyword arguments of `Webhooks`.

    Raises:
        ConfigurationError: the secret is missing, or a setting is unknown or of the wrong type.
    """
    keywords = {**_keywords(), **_secret_keyword()}
    if keywords.get("secret") is None:
        raise ConfigurationError(f'{MISSING_SECRET}; or set {SETTING} = {{"WEBHOOK_SECRET": ...}}')
    if keywords.get("spool"):
        _check_spool_is_supported()
    keywords["secret"] = _import_secret(keywords["secret"])
    if "handoff" in keywords:
        keywords["handoff"] = _core_handoff(keywords["handoff"])
    return keywords


def has_secret() -> bool:
    """Whether `WEBHOOK_SECRET` or `WEBHOOK_SECRET_FILE` is set and not empty.

    Raises:
        ConfigurationError: the setting is not a dict.
    """
    return any(_setting().get(name) for name in SECRET_NAMES)


def written_secrets() -> tuple[str, ...]:
    """Return the secrets that `WEBHOOK_SECRET` or the file contains; none if it is a callable or the path of one."""
    return tuple(secret for secret in secrets_in(webhooks_keywords()["secret"]) if isinstance(secret, str))


def signing_secret(webhook_id: str) -> str | bytes:
    """Return the newest secret of the endpoint `webhook_id`, with which test deliveries are signed.

    Raises:
        ConfigurationError: a setting is invalid, or the endpoint has no secret.
    """
    return newest_secret(webhooks_keywords()["secret"], webhook_id)


def mails_admins() -> bool:
    """Whether alerts are sent to the project's `ADMINS`: `ALERTS_MAIL_ADMINS`, by default false.

    Raises:
        ConfigurationError: it is neither true nor false.
    """
    value = _setting().get(ALERTS_MAIL_ADMINS, False)
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    if not isinstance(value, bool):
        raise ConfigurationError(f'{SETTING}["{ALERTS_MAIL_ADMINS}"] must be true or false')
    return value


def is_manual() -> bool:
    """Whether `HANDOFF` is `manual`: events are handled by other processes, if at all."""
    return bool(_keywords().get("handoff") == MANUAL)


def _own_text(name: str) -> str:
    value = _setting().get(name, "default")
    if not isinstance(value, str):
        raise ConfigurationError(f'{SETTING}["{name}"] must be text, got {type(value).__name__}')
    return value


@cache
def _setting() -> Mapping[str, Any]:
    setting = getattr(settings, SETTING, {})
    if not isinstance(setting, Mapping):
        raise ConfigurationError(f"the setting {SETTING} must be a dict, got {type(setting).__name__}")
    return above_environment(setting, others=OWN_NAMES, ignored=INBOX)


@cache
def _keywords() -> Mapping[str, Any]:
    """Parse all settings but the secret, which may be in a file that only few callers need to read."""
    keywords = read_settings(_setting(), others=OWN_NAMES | SECRET_NAMES)
    if "inbox" in keywords:
        raise ConfigurationError(
            f'{SETTING}["INBOX"] is not supported: events are stored in the model ProcessedEvent; choose its database '
            "with DATABASE_ROUTERS"
        )
    return keywords


def _secret_keyword() -> dict[str, Any]:
    return read_settings({name: value for name, value in _setting().items() if name in SECRET_NAMES})


def _check_spool_is_supported() -> None:
    try:
        import_module("sqlalchemy")
    except ImportError:
        raise ConfigurationError(
            f"{SETTING}[\"SPOOL\"] requires SQLAlchemy: pip install 'envoyou-webhooks[django,sql]'"
        ) from None


def _import_secret(secret: object) -> object:
    if not isinstance(secret, str) or not _is_dotted_path(secret):
        return secret
    # A path that cannot be imported is never used as the secret itself: a misspelt path in the code is not secret.
    try:
        function = import_string(secret)
    except Exception as error:
        # Neither the value nor the error's text, which quotes it: it may be a secret.
        raise ConfigurationError(
            f'{SETTING}["WEBHOOK_SECRET"] looks like the dotted path of a callable, but its import failed with '
            f"{type(error).__name__}; put a secret of this form in a list"
        ) from None
    if not callable(function):
        raise ConfigurationError(f'{SETTING}["WEBHOOK_SECRET"] is a dotted path, but not that of a callable')
    return function


def _core_handoff(handoff: object) -> object:
    """Convert `HANDOFF` to the core's `handoff`, which is `manual` if a task queue handles the events."""
    if callable(handoff):
        return handoff
    if handoff in IN_PROCESS:
        return "auto"
    if handoff in (MANUAL, *TaskQueue):
        return "manual"
    if isinstance(handoff, str) and _is_dotted_path(handoff):
        try:
            function = import_string(handoff)
        except ImportError as error:
            raise ConfigurationError(f'{SETTING}["HANDOFF"] cannot be imported: {error}') from error
        if callable(function):
            return function
    names = ", ".join(repr(name) for name in (*IN_PROCESS, MANUAL, *map(str, TaskQueue)))
    raise ConfigurationError(
        f'{SETTING}["HANDOFF"] must be one of {names}, a function or the dotted path of one, got {handoff!r}'
    )


def _is_dotted_path(text: str) -> bool:
    return "." in text and all(part.isidentifier() for part in text.split("."))


def _forget_parsed_settings(*, setting: str, **_: Any) -> None:
    if setting == SETTING:
        _setting.cache_clear()
        _keywords.cache_clear()


setting_changed.connect(_forget_parsed_settings, dispatch_uid="envoyou_django.conf")
