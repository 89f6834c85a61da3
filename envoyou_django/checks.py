"""System checks: what `manage.py check` finds before an event does."""

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
from envoyou_core.adapter import REMEDY, Handler, disabled_loggers
from envoyou_django import conf
from envoyou_django.endpoints import Endpoint, endpoints
from envoyou_django.inbox.insert import supports
from envoyou_django.project import project_webhooks

__all__ = ["TAG"]

TAG: Final = "envoyou"
"""`manage.py check --tag envoyou` runs these checks only."""

SAMPLE_SECRETS: Final = frozenset({"your-webhook-secret", "whsec_your_webhook_secret_key"})
"""What the guide and this project's documentation write in place of a secret."""

CSRF_MIDDLEWARE: Final = "django.middleware.csrf.CsrfViewMiddleware"
LOGIN_MIDDLEWARE: Final = "django.contrib.auth.middleware.LoginRequiredMiddleware"

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what secrets begin with
MIN_SECRET: Final = 16
FEWEST_CHARACTERS: Final = 5

WAL_MARK: Final = b"\x02\x02"
"""What a SQLite file that is in WAL mode has from its 19th byte on."""

Messages = Iterator[checks.CheckMessage]


Check = Callable[[], Messages]


def _registered(*tags: str, deploy: bool = False, where_settings_work: bool = True) -> Callable[[Check], Check]:
    """Have Django run a check, for all apps or for this one."""

    def decorate(check: Check) -> Check:
        @checks.register(TAG, *tags, deploy=deploy)
        def found(app_configs: Collection[Any] | None, **_: Any) -> list[checks.CheckMessage]:
            is_ours = app_configs is None or apps.get_app_config("envoyou_django") in app_configs
            if not is_ours or (where_settings_work and list(settings_work())):
                return []
            return list(check())

        return check

    return decorate


# Settings


@_registered(where_settings_work=False)
def settings_work() -> Messages:
    """The setting `ENVOYOU` makes a `Webhooks`."""
    try:
        if not conf.has_secret():
            yield checks.Error(
                "There is no webhook secret, so no delivery could be authenticated.",
                hint=f'Set {conf.SETTING} = {{"WEBHOOK_SECRET": os.environ["ENVOYOU_WEBHOOK_SECRET"]}}.',
                id="envoyou.E001",
            )
            return
        conf.handlers_module()
        conf.webhooks_keywords()
    except ConfigurationError as error:
        yield _unusable(error)
        return
    yield from _task_queue_works()


def _task_queue_works() -> Messages:
    try:
        if conf.task_queue() is not None:
            import_module("envoyou_django.tasks")
    except ConfigurationError as error:
        yield checks.Error(
            f"Nobody would work off the inbox: {error}.",
            hint=f'Install or configure what {conf.SETTING}["HANDOFF"] names, or leave it out.',
            id="envoyou.E003",
        )
        return
    try:
        project_webhooks.setup()
    except ConfigurationError as error:
        yield _unusable(error)


def _unusable(error: ConfigurationError) -> checks.CheckMessage:
    return checks.Error(
        f"The setting {conf.SETTING} cannot be used: {error}.",
        hint="The names and values that it may have are listed in the documentation, under Settings.",
        id="envoyou.E002",
    )


# URLs


@_registered(checks.Tags.urls)
def urls_lead_here() -> Messages:
    """Deliveries reach the view, and nothing that they do not pass stands before it."""
    if not getattr(settings, "ROOT_URLCONF", None):
        return
    found = endpoints()
    if not found:
        yield checks.Warning(
            "No URL of this project receives webhooks.",
            hint='Add path("webhooks/envoyou", include("envoyou_django.urls")) to its URLconf. What is wrapped around '
            "the view is to use functools.wraps, or it cannot be seen. Where others than Django receive them, silence "
            "this check.",
            id="envoyou.W001",
        )
    for endpoint in found:
        if endpoint.prefix.endswith("/"):
            yield checks.Warning(
                f"Webhooks are received at {endpoint.prefix!r}, but not without the slash at its end: there they would "
                "be redirected, and a redirect counts as a failure.",
                hint="Leave the slash out where the URLs are included. The address matches with one and without, then.",
                id="envoyou.W002",
            )
        if lost := list(_lost_exemptions(endpoint)):
            yield checks.Error(
                f"The view at {endpoint.prefix!r} has lost what exempts it from {' and '.join(lost)}: every delivery "
                "would be refused.",
                hint="Something is wrapped around it that does not keep its attributes. Let it use functools.wraps.",
                id="envoyou.E004",
            )


def _lost_exemptions(endpoint: Endpoint) -> Iterator[str]:
    view = endpoint.view
    if _is_installed(CSRF_MIDDLEWARE) and not getattr(view, "csrf_exempt", False):
        yield "CSRF tokens"
    if _is_installed(LOGIN_MIDDLEWARE) and getattr(view, "login_required", True):
        yield "logging in"
    alias = _inbox_alias()
    is_atomic = connections[alias].settings_dict.get("ATOMIC_REQUESTS")
    if is_atomic and alias not in getattr(view, "_non_atomic_requests", ()):
        yield "ATOMIC_REQUESTS"


def _is_installed(middleware: str) -> bool:
    """Whether it is, or one that is derived from it. It is not imported: it may belong to an app that is not there."""
    found = [import_string(path) for path in settings.MIDDLEWARE]
    kinds = [kind for each in found if isinstance(each, type) for kind in each.__mro__]
    return any(f"{kind.__module__}.{kind.__qualname__}" == middleware for kind in kinds)


# Handlers


@_registered()
def handlers_are_there() -> Messages:
    """There is something to do for an event, by someone who does it outside the request."""
    handlers = project_webhooks.registered
    if not handlers:
        name = conf.handlers_module()
        yield checks.Warning(
            "No handler is registered: events are accepted and wait.",
            hint=f"Handlers are looked for in the module {name!r} of each installed app.",
            id="envoyou.W003",
        )
    yield from _tasks_run_elsewhere()
    yield from _models_share_the_transaction(handlers)


def _tasks_run_elsewhere() -> Messages:
    if conf.task_queue() is not conf.TaskQueue.DJANGO_TASKS:
        return
    from envoyou_django.tasks import tasks_framework

    framework = tasks_framework()
    backend = framework.task_backends[conf.tasks_backend()] if framework is not None else None
    kinds = {kind.__name__ for kind in type(backend).__mro__}
    if "DummyBackend" in kinds:
        does = "does not run tasks at all: nothing is worked off"
    elif "ImmediateBackend" in kinds:
        does = (
            "runs tasks where they are enqueued: handlers run in the processes that serve requests, one after the other"
        )
    else:
        return
    yield checks.Warning(
        f'The backend {conf.tasks_backend()!r} of TASKS, which HANDOFF = "django_tasks" uses, {does}.',
        hint="Configure a backend that has workers, such as that of django-tasks-db, or leave HANDOFF out.",
        id="envoyou.W006",
    )


def _models_share_the_transaction(handlers: Collection[Handler]) -> Messages:
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
                f"{', '.join(elsewhere)}: on another database than the inbox, {inbox!r}. What a handler writes to "
                "them is not in the transaction that records it as done: it may happen twice.",
                hint="Use event.id as the idempotency key there.",
                id="envoyou.W007",
            )


def _shares_transaction(handler: Handler) -> bool:
    return not handler.is_async and handler.atomic is not False


# Databases


@_registered()
def databases_suit() -> Messages:
    """SQLite is set up for several who write."""
    connection = connections[_inbox_alias()]
    if connection.vendor != "sqlite" or connection.is_in_memory_db():
        return
    options = connection.settings_dict.get("OPTIONS", {})
    if not _asks_for_wal(options) and not _is_in_wal_mode(Path(connection.settings_dict["NAME"])):
        yield checks.Warning(
            f"The inbox is in the SQLite database {connection.alias!r}, which is not in WAL mode: whoever reads keeps "
            "events from being accepted.",
            hint=f'Set DATABASES["{connection.alias}"]["OPTIONS"]["init_command"] = "PRAGMA journal_mode=WAL".',
            id="envoyou.W004",
        )
    if str(options.get("transaction_mode")).upper() not in {"IMMEDIATE", "EXCLUSIVE"}:
        yield checks.Warning(
            f"The inbox is in the SQLite database {connection.alias!r}, whose transactions do not wait for each other: "
            "one that has read and begins to write fails where another has written meanwhile.",
            hint=f'Set DATABASES["{connection.alias}"]["OPTIONS"]["transaction_mode"] = "IMMEDIATE".',
            id="envoyou.W005",
        )
    elif connection.settings_dict["ATOMIC_REQUESTS"]:
        yield checks.Warning(
            f"The inbox is in the SQLite database {connection.alias!r}, whose ATOMIC_REQUESTS have each request of the "
            "site hold its only write lock, also one that only reads: deliveries are answered 503 meanwhile.",
            hint="Leave ATOMIC_REQUESTS out, and decorate the views that need it with transaction.atomic.",
            id="envoyou.W012",
        )


@checks.register(TAG, checks.Tags.database)
def database_tells_duplicates_apart(databases: Collection[str] | None = None, **_: Any) -> list[checks.CheckMessage]:
    """Not asked by a plain `check`: which server answers is known once there is a connection."""
    alias = _inbox_alias()
    if alias not in (databases or ()) or supports(connections[alias]):
        return []
    return [
        checks.Error(
            f"The inbox is in the database {alias!r}, which has no INSERT ... RETURNING: it could not be "
            "told which deliveries are new.",
            hint="Choose SQLite, PostgreSQL or MariaDB for it with DATABASE_ROUTERS.",
            id="envoyou.E005",
        )
    ]


def _asks_for_wal(options: Any) -> bool:
    return "journal_mode=wal" in "".join(str(options.get("init_command")).lower().split())


def _is_in_wal_mode(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return opened.read(20)[18:] == WAL_MARK
    except OSError:
        return False


# Logging


@_registered(where_settings_work=False)
def loggers_work() -> Messages:
    """What is logged about webhooks appears somewhere."""
    if names := disabled_loggers():
        yield checks.Warning(
            f"Disabled by the logging configuration: {', '.join(map(repr, names))}. Nothing is logged there.",
            hint=REMEDY,
            id="envoyou.W013",
        )


# Deployment


@_registered(checks.Tags.security, deploy=True)
def secret_is_one() -> Messages:
    """Nobody guesses the secret."""
    for secret in conf.written_secrets():
        guessed = secret.removeprefix(SECRET_PREFIX)
        if secret in SAMPLE_SECRETS:
            what = "is the one in the documentation, which everybody knows"
        elif len(guessed) < MIN_SECRET or len(set(guessed)) < FEWEST_CHARACTERS:
            what = "can be guessed"
        else:
            continue
        yield checks.Warning(
            f"A webhook secret {what}: whoever knows it can forge events.",
            hint="Take the secret that EnvoyOU has made for the endpoint, or a long random text.",
            id="envoyou.W008",
        )


@_registered(checks.Tags.security, deploy=True)
def secret_is_kept_apart() -> Messages:
    """The secret is not where the code is."""
    for name, source in _sources_of_settings():
        if any(secret in source for secret in conf.written_secrets()):
            yield checks.Warning(
                f"A webhook secret is written in {name}: whoever reads the code can forge events.",
                hint='Read it from the environment: os.environ["ENVOYOU_WEBHOOK_SECRET"].',
                id="envoyou.W009",
            )


def _sources_of_settings() -> Iterator[tuple[str, str]]:
    """The module of the settings, and those beside it in a package of its own, from which it may import."""
    module = getattr(settings, "SETTINGS_MODULE", None)
    if not module:
        return
    package = module.rpartition(".")[0]
    beside = f"{package}." if "settings" in package.split(".") else f"{module}."
    for name in sorted(sys.modules):
        if name == module or name.startswith(beside):
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).suffix == ".py":
                yield name, Path(file).read_text(encoding="utf-8", errors="replace")


@_registered(deploy=True)
def somebody_works() -> Messages:
    """What is accepted outlives a restart, and is worked off."""
    if conf.is_manual():
        yield checks.Warning(
            f'{conf.SETTING}["HANDOFF"] is "manual": the processes that serve requests leave the work to others.',
            hint="Run `manage.py envoyou_worker` beside them, or with --drain from cron; then silence this check.",
            id="envoyou.W010",
        )
    connection = connections[_inbox_alias()]
    if connection.vendor == "sqlite" and connection.is_in_memory_db():
        yield checks.Warning(
            f"The inbox is in the SQLite database {connection.alias!r}, which is in memory: a restart loses what was "
            "accepted.",
            hint="Give it a file, or use a database server.",
            id="envoyou.W011",
        )


def _inbox_alias() -> str:
    alias: str = router.db_for_write(apps.get_model("envoyou_django", "ProcessedEvent"))
    return alias
