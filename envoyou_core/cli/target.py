"""The application that a command line operates on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import typer

from envoyou_core.doctor.findings import Check
from envoyou_core.inbox import Inbox
from envoyou_core.inbox.files import refuse_creation
from envoyou_core.webhooks import Webhooks

__all__ = ["Target", "inbox_of", "target_of", "webhooks_of"]

DEFAULT_SERVER = "http://127.0.0.1:8000"


def _set_up_logging() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def _no_path() -> NoReturn:
    raise typer.BadParameter("name the URL that receives webhooks, such as http://127.0.0.1:8000/webhooks/envoyou")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The application that the commands operate on, and what its framework does in its own way.

    Attributes:
        find: returns the application's `Webhooks`; raises `ConfigurationError` if they cannot be made.
        is_named: whether there is an application; some commands do without one.
        find_path: returns the path of the URL that receives webhooks.
        server: the base URL of the application's server in development.
        migrate: creates the tables, if the framework does that.
        reload: runs a worker, and restarts it when the code changes; gets what runs it and what stops it.
        set_up_logging: prepares the log of a worker.
        checks: what the framework checks beyond the core, for `doctor`.
        show_traceback: whether an unexpected error is reported with its traceback.
    """

    find: Callable[[], Webhooks]
    is_named: bool = True
    find_path: Callable[[], str] = _no_path
    server: str = DEFAULT_SERVER
    migrate: Callable[[], object] | None = None
    reload: Callable[[Callable[[], object], Callable[[], object]], None] | None = None
    set_up_logging: Callable[[], object] = _set_up_logging
    checks: Sequence[Check] = ()
    show_traceback: bool = False


def target_of(context: typer.Context) -> Target:
    """Return the application that a command operates on."""
    target = context.obj
    assert isinstance(target, Target)  # noqa: S101 - each group sets it
    return target


def webhooks_of(context: typer.Context) -> Webhooks:
    """Return the `Webhooks` that a command operates on. It does not create a missing SQLite file.

    A file that it created would be an empty inbox, and might belong to another user than the server's.
    """
    webhooks = target_of(context).find()
    for store in (webhooks.inbox, webhooks.spool):
        refuse_creation(store, at_absolute_path=True)
    return webhooks


def inbox_of(context: typer.Context) -> Inbox:
    """Return the inbox that a command operates on, opened.

    Raises:
        ConfigurationError: it has no tables, or they are those of another release.
    """
    inbox = webhooks_of(context).inbox
    inbox.open()
    return inbox
