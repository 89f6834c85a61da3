"""The app: finds the handlers, and starts the worker with the first request."""

from __future__ import annotations

import logging
import sys
from typing import Any

from django.apps import AppConfig
from django.core.signals import request_started
from django.utils.module_loading import autodiscover_modules

from envoyou_core import ConfigurationError
from envoyou_django import conf
from envoyou_django.ready_made import project_webhooks

__all__ = ["EnvoyouConfig"]

log = logging.getLogger("envoyou.django")


class EnvoyouConfig(AppConfig):
    """`INSTALLED_APPS += ["envoyou_django"]`."""

    name = "envoyou_django"
    verbose_name = "EnvoyOU webhooks"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import the handlers' module of every app, and wait for the first request.

        Raises:
            ConfigurationError: a setting has a name that nobody knows, or a value of the wrong kind.
        """
        autodiscover_modules(conf.handlers_module())
        # Not here: a server may load the application first and fork afterwards, and a child would have no thread.
        request_started.connect(_work_in_this_process, dispatch_uid="envoyou_django.work_in_this_process")


def _work_in_this_process(sender: type, **_: Any) -> None:
    if _is_a_test_client(sender):
        return
    try:
        project_webhooks.work_in_this_process()
    except ConfigurationError as error:
        # Raised here, it would take every page of the site down; the URLs of the webhooks raise it too.
        log.error("no webhook is handled in this process: %s", error)


def _is_a_test_client(sender: type) -> bool:
    test_client = sys.modules.get("django.test.client")
    return test_client is not None and issubclass(sender, (test_client.ClientHandler, test_client.AsyncClientHandler))
