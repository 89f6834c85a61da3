"""The app configuration: imports the handlers, and starts the worker with the first request."""

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
    """Configures the app: `INSTALLED_APPS += ["envoyou_django"]`."""

    name = "envoyou_django"
    verbose_name = "EnvoyOU webhooks"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import each app's module of handlers, and connect the start of the worker to the first request.

        Invalid settings keep a server from starting. In a management command the system checks report them, and
        commands that run no checks need no valid settings.

        Raises:
            ConfigurationError: a setting has an unknown name or a value of the wrong type; in a server, also any other
                invalid configuration, such as a missing secret.
        """
        import_module("envoyou_django.checks")
        # A server may load the application and then fork; a thread started here would not exist in the children.
        request_started.connect(_ensure_worker, dispatch_uid="envoyou_django.ensure_worker")
        callers = _calling_modules()
        try:
            handlers_module = conf.handlers_module()
            if conf.task_queue() is conf.TaskQueue.CELERY:
                # Celery's worker must know the task even if it does not autodiscover tasks in the apps.
                import_module("envoyou_django.tasks")
        except ConfigurationError:
            if COMMANDS in callers:
                return
            raise
        autodiscover_modules(handlers_module)
        if not SERVERS.isdisjoint(callers):
            project_webhooks.setup()


def _calling_modules() -> set[str]:
    """The names of the modules on the call stack, which tell how Django is being set up."""
    names = set()
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        names.add(frame.f_globals.get("__name__", ""))
        frame = frame.f_back
    return names


def _ensure_worker(sender: type, scope: Any = None, **_: Any) -> None:
    if _is_test_client(sender):
        return
    try:
        project_webhooks.ensure_worker()
        if scope is not None:
            project_webhooks.delay_termination()
    except ConfigurationError as error:
        # Raised here, the error would fail every request of the site.
        log.error("the worker was not started; this process handles no webhooks: %s", error)


def _is_test_client(sender: type) -> bool:
    test_client = sys.modules.get("django.test.client")
    return test_client is not None and issubclass(sender, (test_client.ClientHandler, test_client.AsyncClientHandler))
