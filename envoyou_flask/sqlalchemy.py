"""The inbox in the database of an app's Flask-SQLAlchemy, and `db.session` in the transaction that a handler shares."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import URL, Connection, Engine
from sqlalchemy.orm import Session

from envoyou_core import ConfigurationError, EnvoyouError
from envoyou_core.adapter import call_in_forked_children
from envoyou_core.inbox import Claim, HandlerStatus, Settlement, SqlInbox

__all__ = ["FlaskSqlInbox", "SessionReplacedError"]


class SessionReplacedError(EnvoyouError):
    """A handler worked on after `db.session.remove()`, by a session outside its transaction, which was rolled back."""


class FlaskSqlInbox(SqlInbox):
    """A `SqlInbox` in the app's own database. A sync handler's `db.session` works in the transaction that settles it.

    On PostgreSQL and MariaDB it shares the connections of the app, whose `SQLALCHEMY_ENGINE_OPTIONS` hold. On SQLite it
    has its own to the same file, set up as an inbox needs them: WAL, synchronous=FULL, BEGIN IMMEDIATE.

    Args:
        app: the app.
        db: its Flask-SQLAlchemy.
        name: keeps several `Webhooks` on one database apart.
        clock: epoch seconds.

    Raises:
        ConfigurationError: the app has no such database yet, or one that is no place for an inbox.
    """

    def __init__(
        self, app: Flask, db: SQLAlchemy, *, name: str = "default", clock: Callable[[], float] = time.time
    ) -> None:
        engine = _engine_of(app, db)
        super().__init__(_database_of_inbox(engine), name=name, clock=clock)
        self._db = db
        self._engine_of_app = engine
        # Flask-SQLAlchemy's session finds its engines itself and heeds no `bind`; it may be a class of the user's.
        self._joining: type[Any] = type("JoiningSession", (_Joining, db.session.session_factory.class_), {})
        call_in_forked_children(self._leave_parents_connections)

    def _leave_parents_connections(self) -> None:
        # Of the app's own engine, too: an app that is loaded before its server forks, and makes its tables then, leaves
        # its children a connection that they would share.
        self._engine_of_app.dispose(close=False)

    @contextmanager
    def transaction(
        self, claim: Claim, progress: Mapping[str, HandlerStatus], settlement: Callable[[], Settlement] | None = None
    ) -> Iterator[Connection]:
        """See `TransactionalInbox.transaction`. It is that of `db.session`, too.

        What the session commits is a savepoint of it, and what the handler leaves uncommitted is committed with it.

        Raises:
            SessionReplacedError: the handler has removed the session and gone on with another one.
            TransactionTimeoutError: on SQLite, its time was over.
        """
        with super().transaction(claim, progress, settlement) as connection, self._session_joins(connection):
            yield connection

    @contextmanager
    def _session_joins(self, connection: Connection) -> Iterator[None]:
        """Let `db.session` of this app context work on `connection`, in its transaction."""
        scoped = self._db.session
        # A commit releases a savepoint, and a rollback goes back to it: the transaction itself is the inbox's to end.
        session = self._joining(**scoped.session_factory.kw, join_transaction_mode="create_savepoint")
        session.connection_joined, session.engine_replaced = connection, self._engine_of_app
        scoped.registry.set(session)
        try:
            yield
            if scoped.registry.has() and scoped() is not session:
                raise SessionReplacedError(
                    "after db.session.remove(), db.session is another one, outside the handler's transaction: leave it "
                    "out, the session is removed after each handler; or share no transaction: on(..., atomic=False)"
                )
            session.commit()
        finally:
            scoped.remove()


def _engine_of(app: Flask, db: SQLAlchemy) -> Engine:
    try:
        with app.app_context():
            return db.engine
    except (RuntimeError, KeyError) as error:
        raise ConfigurationError(f"the app {app.name!r} has no database yet: call db.init_app(app) first") from error


def _database_of_inbox(engine: Engine) -> URL | Engine:
    if engine.dialect.name == "sqlite":
        if engine.url.database in {None, "", ":memory:"}:
            raise ConfigurationError(
                "SQLALCHEMY_DATABASE_URI is SQLite in memory, where no event is safe: name a file, in tests too"
            )
        return engine.url
    options = {"isolation_level": "READ COMMITTED"} if engine.dialect.name in {"mariadb", "mysql"} else {}
    shared = engine.execution_options(**options)
    # Parameters hold payloads, which must not be in an error's text.
    shared.hide_parameters = True
    return shared


class _Joining(Session):
    """A session that goes to `connection` wherever it would go to `engine`."""

    connection_joined: Connection
    engine_replaced: Engine

    def get_bind(self, *arguments: Any, **options: Any) -> Engine | Connection:
        found = super().get_bind(*arguments, **options)
        return self.connection_joined if found is self.engine_replaced else found
