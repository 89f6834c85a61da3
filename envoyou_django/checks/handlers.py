"""Checks of the handlers, and of what runs them."""

from __future__ import annotations

from collections.abc import Iterator

from django.apps import apps
from django.core import checks
from django.db import router

from envoyou_core.adapter import Handler
from envoyou_django import conf
from envoyou_django.checks.databases import inbox_alias
from envoyou_django.project import project_webhooks

__all__ = ["check_databases_of_models", "check_handlers", "check_tasks_backend"]


def check_handlers() -> Iterator[checks.CheckMessage]:
    """Check that handlers exist."""
    if not project_webhooks.registered:
        name = conf.handlers_module()
        yield checks.Warning(
            "No handler is registered, so events are accepted but not handled.",
            hint=f"Register handlers in the module {name!r} of an installed app.",
            id="envoyou.W003",
        )


def check_tasks_backend() -> Iterator[checks.CheckMessage]:
    """Check that the backend of Django's Tasks runs handlers outside of requests."""
    if conf.task_queue() is not conf.TaskQueue.DJANGO_TASKS:
        return
    from envoyou_django.tasks import tasks_framework

    framework = tasks_framework()
    backend = framework.task_backends[conf.tasks_backend()] if framework is not None else None
    names = {cls.__name__ for cls in type(backend).__mro__}
    if "DummyBackend" in names:
        problem = "does not run tasks, so events are not handled"
    elif "ImmediateBackend" in names:
        problem = "runs tasks when they are enqueued, so handlers run one after another in the web processes"
    else:
        return
    yield checks.Warning(
        f'The backend {conf.tasks_backend()!r} of TASKS, which HANDOFF = "django_tasks" uses, {problem}.',
        hint="Configure a backend with workers, such as the one of django-tasks-db, or remove HANDOFF.",
        id="envoyou.W006",
    )


def check_databases_of_models() -> Iterator[checks.CheckMessage]:
    """Check that the models of handlers share the transaction of the inbox."""
    handlers = project_webhooks.registered
    inbox = inbox_alias()
    for app in apps.get_app_configs():
        modules = {handler.function.__module__ for handler in handlers if _shares_transaction(handler)}
        if not any(f"{module}.".startswith(f"{app.name}.") for module in modules):
            continue
        elsewhere = [
            f"{app.label}.{model.__name__}" for model in app.get_models() if router.db_for_write(model) != inbox
        ]
        if elsewhere:
            yield checks.Warning(
                f"{', '.join(elsewhere)}: not in the inbox's database {inbox!r}. A handler's writes to these models "
                "are not in the transaction that records its success, so they may happen twice.",
                hint="Make these writes idempotent, with event.id as the key.",
                id="envoyou.W007",
            )


def _shares_transaction(handler: Handler) -> bool:
    return not handler.is_async and handler.atomic is not False
