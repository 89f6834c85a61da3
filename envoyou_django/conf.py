"""The setting `ENVOYOU`: one dict, read when it is needed and never kept.

Its names are the keywords of `Webhooks` in upper case; `secret` is `WEBHOOK_SECRET`. There is no `INBOX`: events are
kept in the model `ProcessedEvent`, and `DATABASE_ROUTERS` say on which database.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final

from django.conf import settings
from django.utils.module_loading import import_string

from envoyou_core import ConfigurationError
from envoyou_core.adapter import SECRET_NAMES, newest_secret, read_settings
from envoyou_core.adapter import written_secrets as secrets_in

__all__ = [
    "OWN_NAMES",
    "SETTING",
    "TaskQueue",
    "clock",
    "handlers_module",
    "has_secret",
    "is_manual",
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
OWN_NAMES: Final = frozenset({HANDLERS_MODULE, TASKS_BACKEND, TASKS_QUEUE})
"""The names that only Django's setting has."""


class TaskQueue(StrEnum):
    """A `HANDOFF` by which a project's own task queue does the work."""

    DJANGO_TASKS = "django_tasks"
    CELERY = "celery"


IN_PROCESS: Final = ("auto", "thread")
MANUAL: Final = "manual"


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


def task_queue() -> TaskQueue | None:
    """The project's task queue that `HANDOFF` names, if it names one.

    Raises:
        ConfigurationError: a setting has a name that nobody knows, or a value of the wrong kind.
    """
    handoff = _keywords().get("handoff")
    return TaskQueue(handoff) if handoff in list(TaskQueue) else None


def tasks_backend() -> str:
    """The alias in `TASKS` of the backend that gets the tasks: `TASKS_BACKEND`, by default `default`.

    Raises:
        ConfigurationError: it is no text.
    """
    return _own_text(TASKS_BACKEND)


def tasks_queue_name() -> str:
    """The queue of that backend: `TASKS_QUEUE`, by default `default`.

    Raises:
        ConfigurationError: it is no text.
    """
    return _own_text(TASKS_QUEUE)


def webhooks_keywords() -> dict[str, Any]:
    """The keyword arguments of `Webhooks` that the setting stands for.

    Raises:
        ConfigurationError: there is no secret, a name that nobody knows, or a value of the wrong kind.
    """
    keywords = _keywords() | _secret_keyword()
    if keywords.get("secret") is None:
        raise ConfigurationError(f'there is no webhook secret: set {SETTING} = {{"WEBHOOK_SECRET": ...}}')
    keywords["secret"] = _secret(keywords["secret"])
    if "handoff" in keywords:
        keywords["handoff"] = _handoff(keywords["handoff"])
    return keywords


def has_secret() -> bool:
    """Whether `WEBHOOK_SECRET` or `WEBHOOK_SECRET_FILE` is there, and not empty.

    Raises:
        ConfigurationError: the setting is no dict.
    """
    return any(_given().get(name) for name in SECRET_NAMES)


def written_secrets() -> tuple[str, ...]:
    """The secrets that `WEBHOOK_SECRET` or the file holds itself: none if it is a callable, or its path."""
    return tuple(secret for secret in secrets_in(webhooks_keywords()["secret"]) if isinstance(secret, str))


def signing_secret(webhook_id: str) -> str | bytes:
    """The secret that a delivery to the endpoint `webhook_id` is signed with: of several, the newest.

    Raises:
        ConfigurationError: the settings cannot be used, or no secret is known for that endpoint.
    """
    return newest_secret(webhooks_keywords()["secret"], webhook_id)


def is_manual() -> bool:
    """Whether `HANDOFF` leaves the work to others, of whom nothing is known."""
    return bool(_keywords().get("handoff") == MANUAL)


def _own_text(name: str) -> str:
    value = _given().get(name, "default")
    if not isinstance(value, str):
        raise ConfigurationError(f'{SETTING}["{name}"] is a text, not {type(value).__name__}')
    return value


def _given() -> Mapping[str, Any]:
    given = getattr(settings, SETTING, {})
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"the setting {SETTING} is a dict, not {type(given).__name__}")
    return given


def _keywords() -> dict[str, Any]:
    # Without the secret, so that not every setting that is needed has a file read.
    keywords = read_settings(_given(), others=OWN_NAMES | SECRET_NAMES)
    if "inbox" in keywords:
        raise ConfigurationError(
            f'{SETTING}["INBOX"] has no use in Django: events are kept in the model ProcessedEvent, and '
            "DATABASE_ROUTERS say on which database"
        )
    return keywords


def _secret_keyword() -> dict[str, Any]:
    return read_settings({name: value for name, value in _given().items() if name in SECRET_NAMES})


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


def _handoff(handoff: object) -> object:
    """What `Webhooks` are given for it: a task queue is told of work by the app itself."""
    if callable(handoff):
        return handoff
    if handoff in IN_PROCESS:
        return "auto"
    if handoff in (MANUAL, *TaskQueue):
        return "manual"
    if isinstance(handoff, str) and _is_dotted_path(handoff):
        try:
            found = import_string(handoff)
        except ImportError as error:
            raise ConfigurationError(f'{SETTING}["HANDOFF"] cannot be imported: {error}') from error
        if callable(found):
            return found
    names = ", ".join(repr(name) for name in (*IN_PROCESS, MANUAL, *map(str, TaskQueue)))
    raise ConfigurationError(f'{SETTING}["HANDOFF"] is one of {names}, or a function or its path, not {handoff!r}')


def _is_dotted_path(text: str) -> bool:
    return "." in text and all(part.isidentifier() for part in text.split("."))
