"""System checks of the configuration, run by `manage.py check`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.db import connections, router
from django.utils.module_loading import import_string

from envoyou_core import ConfigurationError
from envoyou_core.adapter import REMEDY, RESERVED, Handler, WorkerSettings, disabled_loggers
from envoyou_django import conf
from envoyou_django.endpoints import Endpoint, endpoints
from envoyou_django.inbox.insert import supports
from envoyou_django.inbox.pools import max_connections
from envoyou_django.project import project_webhooks

__all__ = ["TAG"]

TAG: Final = "envoyou"
"""`manage.py check --tag envoyou` runs only these checks."""

SAMPLE_SECRETS: Final = frozenset({"your-webhook-secret", "whsec_your_webhook_secret_key"})
"""Placeholders for the secret in the guide and in the documentation of this project."""

CSRF_MIDDLEWARE: Final = "django.middleware.csrf.CsrfViewMiddleware"
LOGIN_MIDDLEWARE: Final = "django.contrib.auth.middleware.LoginRequiredMiddleware"

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the prefix of every secret
MIN_LENGTH: Final = 16
MIN_DISTINCT_CHARACTERS: Final = 5

WAL_MARK: Final = b"\x02\x02"
"""Bytes 19 and 20 of a SQLite file in WAL mode."""

Messages = Iterator[checks.CheckMessage]
Check = Callable[[], Messages]


def _register(*tags: str, deploy: bool = False, requires_settings: bool = True) -> Callable[[Check], Check]:
    """Register a check with Django.

    Args:
        tags: tags in addition to `TAG`.
        deploy: run the check only with `--deploy`.
        requires_settings: skip the check if the setting `ENVOYOU` is invalid.
    """

    def decorate(check: Check) -> Check:
        @checks.register(TAG, *tags, deploy=deploy)
        def run(app_configs: Collection[Any] | None, **_: Any) -> list[checks.CheckMessage]:
            is_selected = app_configs is None or apps.get_app_config("envoyou_django") in app_configs
            if not is_selected or (requires_settings and list(check_settings())):
                return []
            return list(check())

        return check

    return decorate


# Settings


@_register(requires_settings=False)
def check_settings() -> Messages:
    """Check that the setting `ENVOYOU` is valid."""
    try:
        if not conf.has_secret():
            yield checks.Error(
                "The webhook secret is not configured, so deliveries cannot be authenticated.",
                hint=f'Set {conf.SETTING} = {{"WEBHOOK_SECRET": os.environ["ENVOYOU_WEBHOOK_SECRET"]}}.',
                id="envoyou.E001",
            )
            return
        conf.handlers_module()
        conf.webhooks_keywords()
    except ConfigurationError as error:
        yield _invalid_settings(error)
        return
    yield from _check_task_queue()


def _check_task_queue() -> Messages:
    try:
        if conf.task_queue() is not None:
            import_module("envoyou_django.tasks")
    except ConfigurationError as error:
        yield checks.Error(
            f"The task queue cannot be used, so events would not be handled: {error}.",
            hint=f'Install or configure the task queue of {conf.SETTING}["HANDOFF"], or remove that setting.',
            id="envoyou.E003",
        )
        return
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


# URLs


@_register(checks.Tags.urls)
def check_urls() -> Messages:
    """Check that deliveries reach the view, without CSRF checks, a login or a redirect."""
    if not getattr(settings, "ROOT_URLCONF", None):
        return
    receiving = endpoints()
    if not receiving:
        yield checks.Warning(
            "No URL of this project receives webhooks.",
            hint='Add path("webhooks/envoyou", include("envoyou_django.urls")) to the URLconf. If a decorator wraps '
            "the view, it must use functools.wraps. If this project does not receive webhooks, silence this check.",
            id="envoyou.W001",
        )
    for endpoint in receiving:
        if endpoint.prefix.endswith("/"):
            yield checks.Warning(
                f"The URL {endpoint.prefix!r} receives webhooks only with its trailing slash. Without it, deliveries "
                "are redirected, which the platform counts as a failure.",
                hint="Remove the trailing slash from the path() that includes envoyou_django.urls, which then matches "
                "both forms.",
                id="envoyou.W002",
            )
        if lost := list(_lost_exemptions(endpoint)):
            yield checks.Error(
                f"The view at {endpoint.prefix!r} has lost its exemption from {' and '.join(lost)}, so it would reject "
                "every delivery.",
                hint="A decorator around the view does not keep its attributes. Use functools.wraps in it.",
                id="envoyou.E004",
            )


def _lost_exemptions(endpoint: Endpoint) -> Iterator[str]:
    view = endpoint.view
    if _is_installed(CSRF_MIDDLEWARE) and not getattr(view, "csrf_exempt", False):
        yield "CSRF protection"
    if _is_installed(LOGIN_MIDDLEWARE) and getattr(view, "login_required", True):
        yield "the login requirement"
    alias = _inbox_alias()
    is_atomic = connections[alias].settings_dict.get("ATOMIC_REQUESTS")
    if is_atomic and alias not in getattr(view, "_non_atomic_requests", ()):
        yield "ATOMIC_REQUESTS"


def _is_installed(middleware: str) -> bool:
    """Return whether `middleware` or a subclass of it is installed.

    The names are compared, because importing `middleware` may fail if its app is not installed.
    """
    installed = [import_string(path) for path in settings.MIDDLEWARE]
    classes = [base for item in installed if isinstance(item, type) for base in item.__mro__]
    return any(f"{cls.__module__}.{cls.__qualname__}" == middleware for cls in classes)


# Handlers


@_register()
def check_handlers() -> Messages:
    """Check that handlers exist, run outside of requests and share the transaction of the inbox."""
    handlers = project_webhooks.registered
    if not handlers:
        name = conf.handlers_module()
        yield checks.Warning(
            "No handler is registered, so events are accepted but not handled.",
            hint=f"Register handlers in the module {name!r} of an installed app.",
            id="envoyou.W003",
        )
    yield from _check_tasks_backend()
    yield from _check_databases_of_models(handlers)


def _check_tasks_backend() -> Messages:
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


def _check_databases_of_models(handlers: Collection[Handler]) -> Messages:
    inbox = _inbox_alias()
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


# Databases


@_register()
def check_sqlite() -> Messages:
    """Check that a SQLite database is configured for concurrent writers."""
    connection = connections[_inbox_alias()]
    if connection.vendor != "sqlite" or connection.is_in_memory_db():
        return
    options = connection.settings_dict.get("OPTIONS", {})
    if not _enables_wal(options) and not _is_in_wal_mode(Path(connection.settings_dict["NAME"])):
        yield checks.Warning(
            f"The inbox's SQLite database {connection.alias!r} is not in WAL mode, so readers block the acceptance of "
            "events.",
            hint=f'Set DATABASES["{connection.alias}"]["OPTIONS"]["init_command"] = "PRAGMA journal_mode=WAL".',
            id="envoyou.W004",
        )
    if str(options.get("transaction_mode")).upper() not in {"IMMEDIATE", "EXCLUSIVE"}:
        yield checks.Warning(
            f"The inbox's SQLite database {connection.alias!r} does not use immediate transactions: a transaction that "
            "reads before it writes fails if another one writes in between.",
            hint=f'Set DATABASES["{connection.alias}"]["OPTIONS"]["transaction_mode"] = "IMMEDIATE".',
            id="envoyou.W005",
        )
    elif connection.settings_dict["ATOMIC_REQUESTS"]:
        yield checks.Warning(
            f"The inbox's SQLite database {connection.alias!r} uses ATOMIC_REQUESTS: every request holds the only "
            "write lock, even if it only reads, and deliveries get 503 meanwhile.",
            hint="Remove ATOMIC_REQUESTS and decorate the views that need a transaction with transaction.atomic.",
            id="envoyou.W012",
        )


@checks.register(TAG, checks.Tags.database)
def check_database(databases: Collection[str] | None = None, **_: Any) -> list[checks.CheckMessage]:
    """Check that the database can detect duplicates.

    It runs only with `--database`, because only a connection tells the kind of server.
    """
    alias = _inbox_alias()
    if alias not in (databases or ()) or supports(connections[alias]):
        return []
    return [
        checks.Error(
            f"The inbox's database {alias!r} does not support INSERT ... RETURNING, so new deliveries cannot be "
            "distinguished from duplicates.",
            hint="Use SQLite, PostgreSQL or MariaDB for the inbox; see DATABASE_ROUTERS.",
            id="envoyou.E005",
        )
    ]


def _enables_wal(options: Any) -> bool:
    return "journal_mode=wal" in "".join(str(options.get("init_command")).lower().split())


def _is_in_wal_mode(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(20)[18:] == WAL_MARK
    except OSError:
        return False


@_register()
def check_connection_pool() -> Messages:
    """Check that handlers leave connections of a pool to acceptance and to settlements."""
    alias = _inbox_alias()
    total, concurrency = (
        max_connections(alias),
        conf.webhooks_keywords().get("concurrency", WorkerSettings().concurrency),
    )
    if total is None:
        return
    if total < 2:
        yield checks.Error(
            f"The connection pool of the inbox's database {alias!r} has a single connection: while a handler holds it, "
            "deliveries cannot be stored.",
            hint=f'Raise DATABASES["{alias}"]["OPTIONS"]["pool"]["max_size"] to {concurrency + RESERVED} or more.',
            id="envoyou.E006",
        )
    elif total < concurrency + RESERVED:
        yield checks.Warning(
            f"The connection pool of the inbox's database {alias!r} has at most {total} connections: no more than "
            f"{max(1, total - RESERVED)} handlers of a process run in a transaction at once, instead of {concurrency}.",
            hint=f'Raise DATABASES["{alias}"]["OPTIONS"]["pool"]["max_size"] to {concurrency + RESERVED} or more, plus '
            "those that your own requests use at once.",
            id="envoyou.W014",
        )


# Logging


@_register(requires_settings=False)
def check_loggers() -> Messages:
    """Check that the loggers are enabled."""
    if names := disabled_loggers():
        yield checks.Warning(
            f"The logging configuration disables these loggers: {', '.join(map(repr, names))}.",
            hint=REMEDY,
            id="envoyou.W013",
        )


# Deployment


@_register(checks.Tags.security, deploy=True)
def check_secret() -> Messages:
    """Check that the secret is not a placeholder and not easy to guess."""
    for secret in conf.written_secrets():
        random_part = secret.removeprefix(SECRET_PREFIX)
        if secret in SAMPLE_SECRETS:
            problem = "is the placeholder of the documentation"
        elif len(random_part) < MIN_LENGTH or len(set(random_part)) < MIN_DISTINCT_CHARACTERS:
            problem = "is easy to guess"
        else:
            continue
        yield checks.Warning(
            f"A webhook secret {problem}, so anyone can forge events.",
            hint="Use the secret that EnvoyOU generated for the endpoint, or a long random string.",
            id="envoyou.W008",
        )


@_register(checks.Tags.security, deploy=True)
def check_secret_location() -> Messages:
    """Check that the secret is not in the code."""
    for name, source in _sources_of_settings():
        if any(secret in source for secret in conf.written_secrets()):
            yield checks.Warning(
                f"A webhook secret is written in {name}, so anyone who can read the code can forge events.",
                hint='Read it from the environment: os.environ["ENVOYOU_WEBHOOK_SECRET"].',
                id="envoyou.W009",
            )


def _sources_of_settings() -> Iterator[tuple[str, str]]:
    """Yield the name and the source of the settings module and of the other modules in its package."""
    module = getattr(settings, "SETTINGS_MODULE", None)
    if not module:
        return
    package = module.rpartition(".")[0]
    siblings = f"{package}." if "settings" in package.split(".") else f"{module}."
    for name in sorted(sys.modules):
        if name == module or name.startswith(siblings):
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).suffix == ".py":
                yield name, Path(file).read_text(encoding="utf-8", errors="replace")


@_register(deploy=True)
def check_deployment() -> Messages:
    """Check that accepted events survive a restart, and that a worker handles them."""
    if conf.is_manual():
        yield checks.Warning(
            f'{conf.SETTING}["HANDOFF"] is "manual", so web processes do not handle events.',
            hint="Run `manage.py envoyou worker`, or run it with --drain from cron; then silence this check.",
            id="envoyou.W010",
        )
    connection = connections[_inbox_alias()]
    if connection.vendor == "sqlite" and connection.is_in_memory_db():
        yield checks.Warning(
            f"The inbox's SQLite database {connection.alias!r} is in memory, so a restart loses accepted events.",
            hint="Use a database file or a database server.",
            id="envoyou.W011",
        )


def _inbox_alias() -> str:
    alias: str = router.db_for_write(apps.get_model("envoyou_django", "ProcessedEvent"))
    return alias
