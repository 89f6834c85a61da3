"""The app: finds the handlers, and starts the worker with the first request."""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from types import FrameType
from typing import Any, Final

from django.apps import AppConfig
from django.core.signals import request_started
from django.utils.module_loading import autodiscover_modules

from envoyou_core import ConfigurationError
from envoyou_core.adapter import RedactedLogger
from envoyou_django import conf
from envoyou_django.project import project_webhooks

__all__ = ["EnvoyouConfig"]

COMMANDS: Final = "django.core.management"
SERVERS: Final = frozenset({"django.core.wsgi", "django.core.asgi"})

log = RedactedLogger("envoyou.django")


class EnvoyouConfig(AppConfig):
    """`INSTALLED_APPS += ["envoyou_django"]`."""

    name = "envoyou_django"
    verbose_name = "EnvoyOU webhooks"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import the handlers' module of every app, and wait for the first request.

        Settings that cannot work end a server that starts. A command has the system checks, which say it in a line and
        do not keep those from working that need no webhooks.

        Raises:
            ConfigurationError: a setting has a name that nobody knows, or a value of the wrong kind; for a server, also
                whatever else cannot work, such as no secret.
        """
        import_module("envoyou_django.checks")
        # Not here: a server may load the application first and fork afterwards, and a child would have no thread.
        request_started.connect(_ensure_worker, dispatch_uid="envoyou_django.ensure_worker")
        asked_by = _modules_that_ask()
        try:
            handlers_module = conf.handlers_module()
            if conf.task_queue() is conf.TaskQueue.CELERY:
                # Celery's worker has to know the task, whether or not it looks for tasks in the apps.
                import_module("envoyou_django.tasks")
        except ConfigurationError:
            if COMMANDS in asked_by:
                return
            raise
        autodiscover_modules(handlers_module)
        if not SERVERS.isdisjoint(asked_by):
            project_webhooks.setup()


def _modules_that_ask() -> set[str]:
    """The modules that are waiting for Django to be set up."""
    found = set()
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        found.add(frame.f_globals.get("__name__", ""))
        frame = frame.f_back
    return found


def _ensure_worker(sender: type, **_: Any) -> None:
    if _is_a_test_client(sender):
        return
    try:
        project_webhooks.ensure_worker()
    except ConfigurationError as error:
        # Raised here, it would take every page of the site down.
        log.error("no webhook is handled in this process: %s", error)


def _is_a_test_client(sender: type) -> bool:
    test_client = sys.modules.get("django.test.client")
    return test_client is not None and issubclass(sender, (test_client.ClientHandler, test_client.AsyncClientHandler))
