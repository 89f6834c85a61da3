"""The task that drains the inbox, for the task queue that `HANDOFF` names: Django's Tasks, or Celery.

A task carries no event: it handles every event that is due, so a lost or doubled task does no harm. The task is made
from the settings when this module is imported. If `HANDOFF` names no task queue, it is a plain function.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

from envoyou_core import ConfigurationError
from envoyou_core.adapter import DrainTask
from envoyou_django import conf, webhooks

__all__ = ["enqueue", "tasks_framework", "work_off"]


def work_off() -> None:
    """Handle due events for up to 20 seconds, enqueue a task for later ones, and apply the retention hourly.

    The name is part of messages in brokers: do not change it.
    """
    _drain.run()


def enqueue(delay: float = 0.0) -> None:
    """Enqueue the task.

    Args:
        delay: seconds to wait before it runs. If a backend of Django's Tasks does not support that, a delayed task is
            not enqueued at all: each process that accepts events enqueues one when an event is due.
    """
    if conf.task_queue() is conf.TaskQueue.CELERY:
        _task.apply_async(countdown=delay or None, ignore_result=True)
    elif not delay:
        _task.enqueue()
    elif _task.get_backend().supports_defer:
        _task.using(run_after=datetime.now(UTC) + timedelta(seconds=delay)).enqueue()


def tasks_framework() -> ModuleType | None:
    """Import Django's Tasks: `django.tasks` since Django 6.0, else the package `django-tasks`; `None` without both."""
    try:
        from django import tasks
    except ImportError:
        try:
            import django_tasks as tasks
        except ImportError:
            return None
    framework: ModuleType = tasks
    return framework


def _make_task(function: Callable[[], None]) -> Any:
    queue = conf.task_queue()
    if queue is conf.TaskQueue.CELERY:
        try:
            from celery import shared_task
        except ImportError:
            raise ConfigurationError(
                "HANDOFF 'celery' requires Celery: pip install 'envoyou-webhooks[celery]'"
            ) from None
        return shared_task(name="envoyou.work_off", ignore_result=True)(function)
    if queue is conf.TaskQueue.DJANGO_TASKS:
        framework = tasks_framework()
        if framework is None:
            raise ConfigurationError(
                "HANDOFF 'django_tasks' requires Django 6.0 or django-tasks: "
                "pip install 'envoyou-webhooks[django-tasks]'"
            )
        try:
            return framework.task(backend=conf.tasks_backend(), queue_name=conf.tasks_queue_name())(function)
        except Exception as error:
            # Their types differ between Django and the package.
            raise ConfigurationError(f"HANDOFF is 'django_tasks', and the backend refused the task: {error}") from error
    return function


_drain = DrainTask(webhooks, enqueue)

work_off = _task = _make_task(work_off)
