"""The task that drains the inbox, for the task queue that `HANDOFF` names: Django's Tasks, or Celery.

A task carries no event: it handles every event that is due, so a lost or doubled task does no harm. The task is made
from the settings when this module is imported. If `HANDOFF` names no task queue, it is a plain function.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from envoyou_core import ConfigurationError
from envoyou_core.adapter import MAINTENANCE_INTERVAL
from envoyou_django import conf, webhooks

if TYPE_CHECKING:
    from envoyou_django.inbox.inbox import OrmInbox

__all__ = ["enqueue", "tasks_framework", "work_off"]

TIME_BUDGET = 20.0
"""Seconds after which a task starts no further event and enqueues another task, so that a queue's worker can stop."""

_enqueued_until = 0.0

_next_maintenance = float("-inf")


def work_off() -> None:
    """Handle due events for up to `TIME_BUDGET` seconds, enqueue a task for later ones, and apply the retention hourly.

    The name is part of messages in brokers: do not change it.
    """
    started = time.monotonic()
    settled = webhooks.drain(within=TIME_BUDGET)
    if time.monotonic() - started >= TIME_BUDGET:
        enqueue()
    elif settled:
        _enqueue_for_next_due()
    _run_maintenance()


def _run_maintenance() -> None:
    """Apply the retention settings, once an hour in each process, because no worker may be running that does."""
    global _next_maintenance
    if time.monotonic() >= _next_maintenance:
        _next_maintenance = time.monotonic() + MAINTENANCE_INTERVAL
        webhooks.apply_retention()


def _enqueue_for_next_due() -> None:
    """Enqueue a task for the time when the next event is due, such as a retry, unless one is enqueued until then."""
    global _enqueued_until
    until_due = cast("OrmInbox", webhooks.inbox).seconds_until_next_due()
    now = time.monotonic()
    if until_due is None or now < _enqueued_until <= now + until_due:
        return
    _enqueued_until = now + until_due
    enqueue(until_due)


def enqueue(delay: float = 0.0) -> None:
    """Enqueue the task.

    Args:
        delay: seconds to wait before it runs. If a backend of Django's Tasks does not support that, a delayed task is
            not enqueued at all: `TaskQueueWaker` enqueues one when an event is overdue.
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


work_off = _task = _make_task(work_off)
