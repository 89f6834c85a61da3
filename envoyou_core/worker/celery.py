"""`handoff="celery"`: a task of the project's own Celery app handles the events.

The task is registered in every Celery app of a process in which a `Webhooks` object with this handoff is created.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from envoyou_core.errors import ConfigurationError
from envoyou_core.worker.task import DrainTask

if TYPE_CHECKING:
    from envoyou_core.webhooks import Webhooks

__all__ = ["TASK", "celery_handoff", "has_celery_app"]

TASK = "envoyou.handle_due_events"
"""The name is part of messages in brokers: do not change it."""

_tasks: dict[str, DrainTask] = {}


def celery_handoff(webhooks: Webhooks, name: str) -> Callable[[str], None]:
    """Let the task handle the events of `webhooks`, and return the function that enqueues it.

    Args:
        webhooks: replaces an earlier object of the same name in this process.
        name: the name of `webhooks`.

    Raises:
        ConfigurationError: Celery is not installed.
    """
    _shared_task()
    _tasks[name] = DrainTask(webhooks, lambda delay: _enqueue(name, delay))
    return lambda event_id: _enqueue(name)


def has_celery_app() -> bool:
    """Return whether this process has a Celery app of the project.

    Celery's substitute for a missing app would send the task to a broker that no worker of the project consumes.
    """
    from celery import current_app

    return bool(current_app.main != "default" or current_app.set_as_current)


def _enqueue(name: str, delay: float = 0.0) -> None:
    if not has_celery_app():
        raise ConfigurationError(
            "handoff 'celery' found no Celery app: import the project's app in this process and call app.set_default()"
        )
    _shared_task().apply_async(args=[name], countdown=delay or None, ignore_result=True)


def _handle_due_events(name: str) -> None:
    task = _tasks.get(name)
    if task is None:
        raise ConfigurationError(
            f"this process has no Webhooks named {name!r} with handoff 'celery': "
            "import the module that creates it in the Celery worker, for example with the setting `include`"
        )
    task.run()


@cache
def _shared_task() -> Any:
    """Register the task in every Celery app of this process, and return it."""
    try:
        from celery import shared_task
    except ImportError:
        raise ConfigurationError("handoff 'celery' requires Celery: pip install 'envoyou-webhooks[celery]'") from None
    return shared_task(name=TASK, ignore_result=True)(_handle_due_events)
