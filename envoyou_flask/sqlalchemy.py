"""An inbox in the database of an app's Flask-SQLAlchemy, whose `db.session` joins the transactions of handlers."""

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
    """A handler used `db.session` after `db.session.remove()`, outside its transaction, which was rolled back."""


class FlaskSqlInbox(SqlInbox):
    """A `SqlInbox` in the app's own database. The `db.session` of a sync handler joins the handler's transaction.

    On PostgreSQL and MariaDB it uses the app's engine with its `SQLALCHEMY_ENGINE_OPTIONS`. On SQLite it has its own
    connections to the same file, with the options that an inbox requires: WAL, synchronous=FULL, BEGIN IMMEDIATE.

    Args:
        app: the app.
        db: its Flask-SQLAlchemy.
        name: separates several `Webhooks` objects that share a database.
        clock: returns epoch seconds.

    Raises:
        ConfigurationError: `db` is not initialised for the app, or its database cannot hold an inbox.
    """

    def __init__(
        self, app: Flask, db: SQLAlchemy, *, name: str = "default", clock: Callable[[], float] = time.time
    ) -> None:
        engine = _engine_of(app, db)
        super().__init__(_database_of_inbox(engine), name=name, clock=clock)
        self._db = db
        self._engine_of_app = engine
        # Flask-SQLAlchemy's session chooses engines itself and ignores `bind`; its class may be the user's own.
        self._joining: type[Any] = type("JoiningSession", (_Joining, db.session.session_factory.class_), {})
        call_in_forked_children(self._drop_inherited_connections)

    def _drop_inherited_connections(self) -> None:
        # The app's own engine too: if an app creates its tables before the server forks, the children inherit an open
        # connection, which they must not share.
        self._engine_of_app.dispose(close=False)

    @contextmanager
    def transaction(
        self, claim: Claim, progress: Mapping[str, HandlerStatus], settlement: Callable[[], Settlement] | None = None
    ) -> Iterator[Connection]:
        """See `TransactionalInbox.transaction`. `db.session` joins the transaction.

        A commit of the session releases a savepoint. Changes that the handler leaves uncommitted are committed with the
        transaction.

        Raises:
            SessionReplacedError: the handler has removed the session and used another one.
            TransactionTimeoutError: on SQLite, the time limit has passed.
        """
        with super().transaction(claim, progress, settlement) as connection, self._join_session(connection):
            yield connection

    @contextmanager
    def _join_session(self, connection: Connection) -> Iterator[None]:
        """Bind the `db.session` of this app context to `connection` and its transaction."""
        scoped = self._db.session
        # Commit and rollback of the session concern a savepoint: only the inbox ends the transaction itself.
        session = self._joining(**scoped.session_factory.kw, join_transaction_mode="create_savepoint")
        session.connection_joined, session.engine_replaced = connection, self._engine_of_app
        scoped.registry.set(session)
        try:
            yield
            if scoped.registry.has() and scoped() is not session:
                raise SessionReplacedError(
                    "db.session was used after db.session.remove(), outside the handler's transaction; do not remove "
                    "it, because it is removed after each handler, or register the handler with on(..., atomic=False)"
                )
            session.commit()
        finally:
            scoped.remove()


def _engine_of(app: Flask, db: SQLAlchemy) -> Engine:
    try:
        with app.app_context():
            return db.engine
    except (RuntimeError, KeyError) as error:
        raise ConfigurationError(
            f"db is not initialised for the app {app.name!r}: call db.init_app(app) first"
        ) from error


def _database_of_inbox(engine: Engine) -> URL | Engine:
    if engine.dialect.name == "sqlite":
        if engine.url.database in {None, "", ":memory:"}:
            raise ConfigurationError(
                "SQLALCHEMY_DATABASE_URI must name a SQLite file, got a database in memory, which would lose events"
            )
        return engine.url
    options = {"isolation_level": "READ COMMITTED"} if engine.dialect.name in {"mariadb", "mysql"} else {}
    shared = engine.execution_options(**options)
    # Parameters contain payloads, which must not appear in error texts.
    shared.hide_parameters = True
    return shared


class _Joining(Session):
    """A session that uses `connection_joined` instead of `engine_replaced`."""

    connection_joined: Connection
    engine_replaced: Engine

    def get_bind(self, *arguments: Any, **options: Any) -> Engine | Connection:
        bind = super().get_bind(*arguments, **options)
        return self.connection_joined if bind is self.engine_replaced else bind
