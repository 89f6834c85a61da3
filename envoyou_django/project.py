"""The project's `Webhooks`: made from the settings on first use, and again after a test has changed them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import django
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from envoyou_core import ConfigurationError, Handlers
from envoyou_core.adapter import Handler, Hook, HookKind, Registration
from envoyou_django import conf
from envoyou_django.alerts import mail_alert_to_admins
from envoyou_django.runtime import DjangoWebhooks, check_handler

__all__ = ["ProjectWebhooks", "project_webhooks"]


class ProjectWebhooks(Registration):
    """A proxy of the project's `Webhooks`. Handlers and hooks can be registered before there are settings.

    Registrations outlive a change of the settings. Those that a test makes while it overrides the settings end with
    the override.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._webhooks: DjangoWebhooks | None = None
        self._registry = Handlers()
        self._outer_registries: list[Handlers] = []

    def __getattr__(self, name: str) -> Any:
        # Django and pytest inspect the names of a module, private ones too; this must not require settings.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.setup(), name)

    def add_handler(self, handler: Handler) -> None:
        """Add a handler. See `DjangoWebhooks.add_handler`.

        Raises:
            ConfigurationError: its name is taken, or Django does not support it.
        """
        check_handler(handler)
        with self._lock:
            self._registry.add_handler(handler)
            if self._webhooks is not None:
                self._webhooks.add_handler(handler)

    def add_hook(self, kind: HookKind, hook: Hook) -> None:
        """Add a hook. Hooks of one kind are called in the order in which they were added."""
        with self._lock:
            self._registry.add_hook(kind, hook)
            if self._webhooks is not None:
                self._webhooks.add_hook(kind, hook)

    def __envoyou_webhooks__(self) -> DjangoWebhooks:
        """Return the project's `Webhooks` for `envoyou --app envoyou_django:webhooks`.

        Raises:
            ConfigurationError: `DJANGO_SETTINGS_MODULE` is not set, or a setting is invalid.
        """
        try:
            django.setup()
        except ImproperlyConfigured as error:
            raise ConfigurationError(f"Django is not configured: {error}") from error
        return self.setup()

    @property
    def registered(self) -> Sequence[Handler]:
        """The registered handlers, in the order of registration."""
        return tuple(self._registry)

    def setup(self) -> DjangoWebhooks:
        """Return the project's `Webhooks`; make it if there is none yet.

        Raises:
            ConfigurationError: a setting is invalid, or the secret is missing.
        """
        with self._lock:
            if self._webhooks is None:
                # Models can be imported only once the apps are loaded.
                from envoyou_django.inbox.inbox import OrmInbox

                keywords = conf.webhooks_keywords()
                inbox = OrmInbox(name=keywords.get("name", "default"), clock=conf.clock())
                webhooks = DjangoWebhooks(**keywords, inbox=inbox, hint=_task_queue_hint())
                webhooks.include(self._registry)
                if conf.mails_admins():
                    webhooks.on_alert(mail_alert_to_admins)
                self._webhooks = webhooks
            return self._webhooks

    def reset(self, *, override_begins: bool) -> None:
        """Stop the project's `Webhooks`; the next use makes it again.

        Args:
            override_begins: whether a test begins to override the settings, or ends the override.
        """
        with self._lock:
            webhooks, self._webhooks = self._webhooks, None
            if override_begins:
                self._outer_registries.append(self._registry)
                self._registry = Handlers()
                self._registry.include(self._outer_registries[-1])
            elif self._outer_registries:
                self._registry = self._outer_registries.pop()
        if webhooks is not None:
            webhooks.stop()
            webhooks.inbox.close()


def _task_queue_hint() -> Callable[[], object] | None:
    if conf.task_queue() is None:
        return None
    # The task is made from the settings when its module is imported.
    from envoyou_django.tasks import enqueue

    return enqueue


def _on_setting_changed(*, setting: str, enter: bool, **_: Any) -> None:
    if setting == conf.SETTING:
        project_webhooks.reset(override_begins=enter)


project_webhooks = ProjectWebhooks()

setting_changed.connect(_on_setting_changed, dispatch_uid="envoyou_django.project")
