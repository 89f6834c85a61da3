"""The task that works off what is due, for the task queue that `HANDOFF` names: Django's Tasks, or Celery.

The inbox is the truth, and a task only a hint: it does whatever is due, and does nothing when it comes twice. It is
made from the settings when this module is imported; under a `HANDOFF` that names no queue, it is a plain function.
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

__all__ = ["hint", "tasks_framework", "work_off"]

BUDGET = 20.0
"""Seconds after which a task begins nothing more, and leaves the rest to the next one, so that a queue's worker can
end."""

_hinted_until = 0.0

_runs_maintenance_at = float("-inf")


def work_off() -> None:
    """Do what is due, for as long as `BUDGET` lasts, hint at what comes due later, and clear up once an hour."""
    began = time.monotonic()
    settled = webhooks.drain(within=BUDGET)
    if time.monotonic() - began >= BUDGET:
        hint()
    elif settled:
        _hint_at_what_comes_due()
    _run_maintenance()


def _run_maintenance() -> None:
    """No worker may run that does; each process of the queue has its own hour, and begins with its first task."""
    global _runs_maintenance_at
    if time.monotonic() >= _runs_maintenance_at:
        _runs_maintenance_at = time.monotonic() + MAINTENANCE_INTERVAL
        webhooks.apply_retention()


def _hint_at_what_comes_due() -> None:
    """Retries, for instance. One hint is enough for all that comes due by then."""
    global _hinted_until
    until_due = cast("OrmInbox", webhooks.inbox).seconds_until_next_due()
    now = time.monotonic()
    if until_due is None or now < _hinted_until <= now + until_due:
        return
    _hinted_until = now + until_due
    hint(until_due)


def hint(delay: float = 0.0) -> None:
    """Enqueue the task.

    Args:
        delay: seconds after which it is to run. A backend of Django's Tasks that cannot wait gets none: the sweep hints
            when it is time.
    """
    if conf.task_queue() is conf.TaskQueue.CELERY:
        _task.apply_async(countdown=delay or None, ignore_result=True)
    elif not delay:
        _task.enqueue()
    elif _task.get_backend().supports_defer:
        _task.using(run_after=datetime.now(UTC) + timedelta(seconds=delay)).enqueue()


def tasks_framework() -> ModuleType | None:
    """Django's Tasks: `django.tasks` from Django 6.0 on, before that the package `django-tasks`, if it is there."""
    try:
        from django import tasks
    except ImportError:
        try:
            import django_tasks as tasks
        except ImportError:
            return None
    found: ModuleType = tasks
    return found


def _made_a_task(function: Callable[[], None]) -> Any:
    queue = conf.task_queue()
    if queue is conf.TaskQueue.CELERY:
        try:
            from celery import shared_task
        except ImportError:
            raise ConfigurationError(
                "HANDOFF is 'celery', which is not installed: pip install 'envoyou-webhooks[celery]'"
            ) from None
        return shared_task(name="envoyou.work_off", ignore_result=True)(function)
    if queue is conf.TaskQueue.DJANGO_TASKS:
        framework = tasks_framework()
        if framework is None:
            raise ConfigurationError(
                "HANDOFF is 'django_tasks', which Django has from 6.0 on: pip install 'envoyou-webhooks[django-tasks]'"
            )
        try:
            return framework.task(backend=conf.tasks_backend(), queue_name=conf.tasks_queue_name())(function)
        except Exception as error:
            # Of several types, and other ones in the package than in Django.
            raise ConfigurationError(
                f"HANDOFF is 'django_tasks', and the backend does not take the task: {error}"
            ) from error
    return function


work_off = _task = _made_a_task(work_off)
