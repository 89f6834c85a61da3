"""Checks of the setting `ENVOYOU`, the environment and the logging configuration."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from importlib import import_module
from types import FrameType
from typing import Final

from django.core import checks
from django.core.management.base import BaseCommand

from envoyou_core import ConfigurationError
from envoyou_core.adapter import REMEDY, disabled_loggers, has_celery_app
from envoyou_django import conf
from envoyou_django.project import project_webhooks

__all__ = ["are_settings_usable", "check_environment", "check_loggers", "check_settings"]

SERVING_COMMANDS: Final = frozenset({"check", "runserver", "testserver"})
"""The commands of Django that require the secret."""


def are_settings_usable() -> bool:
    """Return whether the setting `ENVOYOU` is valid and there is a secret."""
    return not list(check_settings()) and conf.has_secret()


def check_settings() -> Iterator[checks.CheckMessage]:
    """Check that the setting `ENVOYOU` is valid, and that there is a secret if this process needs one."""
    try:
        conf.handlers_module()
        if not conf.has_secret():
            if not _is_administrative():
                yield checks.Error(
                    "The webhook secret is not configured, so deliveries cannot be authenticated.",
                    hint="Set the environment variable ENVOYOU_WEBHOOK_SECRET, or "
                    f'{conf.SETTING} = {{"WEBHOOK_SECRET": ...}}.',
                    id="envoyou.E001",
                )
            return
        conf.webhooks_keywords()
    except ConfigurationError as error:
        yield _invalid_settings(error)
        return
    yield from _check_task_queue()


def _is_administrative() -> bool:
    """Return whether a command of Django's runs that neither serves nor handles events, such as `migrate`.

    Commands call others: `test` calls `check`.
    """
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        if frame.f_code is BaseCommand.execute.__code__:
            module = type(frame.f_locals["self"]).__module__
            if module.startswith("django.") and module.rpartition(".")[2] not in SERVING_COMMANDS:
                return True
        frame = frame.f_back
    return False


def _check_task_queue() -> Iterator[checks.CheckMessage]:
    try:
        queue = conf.task_queue()
        if queue is not None:
            import_module("envoyou_django.tasks")
    except ConfigurationError as error:
        yield checks.Error(
            f"The task queue cannot be used, so events would not be handled: {error}.",
            hint=f'Install or configure the task queue of {conf.SETTING}["HANDOFF"], or remove that setting.',
            id="envoyou.E003",
        )
        return
    if queue is conf.TaskQueue.CELERY and not has_celery_app():
        yield checks.Error(
            f'{conf.SETTING}["HANDOFF"] is "celery", but this process has no Celery app, so accepted events would not '
            "be handed to the project's workers.",
            hint="Import the project's Celery app in the package of the settings: from .celery import app.",
            id="envoyou.E007",
        )
    try:
        project_webhooks.setup()
    except ConfigurationError as error:
        yield _invalid_settings(error)


def _invalid_settings(error: ConfigurationError) -> checks.CheckMessage:
    return checks.Error(
        f"The setting {conf.SETTING} is invalid: {error}.",
        hint="See Settings in the documentation for the supported names and values.",
        id="envoyou.E002",
    )


def check_environment() -> Iterator[checks.CheckMessage]:
    """Check that the environment sets nothing that Django ignores."""
    if "ENVOYOU_INBOX" in os.environ:
        yield checks.Warning(
            "The environment variable ENVOYOU_INBOX has no effect in Django: events are stored in the model "
            "ProcessedEvent.",
            hint="Choose its database with DATABASE_ROUTERS, and remove the variable.",
            id="envoyou.W016",
        )


def check_loggers() -> Iterator[checks.CheckMessage]:
    """Check that the loggers are enabled."""
    if names := disabled_loggers():
        yield checks.Warning(
            f"The logging configuration disables these loggers: {', '.join(map(repr, names))}.",
            hint=REMEDY,
            id="envoyou.W013",
        )
