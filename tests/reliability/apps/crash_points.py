"""Named points at which the process of an app ends at once, as by `kill -9` or a power cut.

`CRASH_AT` is the name of a point, `CRASH_ON_PASS` the pass at which the process ends. That happens once per folder of a
site. The library contains no crash points: they wrap its public and private methods from outside.
"""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event

from envoyou_core import Webhooks
from envoyou_core.inbox.sql import acceptance

if TYPE_CHECKING:
    from django.dispatch import Signal

POINT = os.environ.get("CRASH_AT", "")
ON_PASS = int(os.environ.get("CRASH_ON_PASS", "1"))
FOLDER = Path(os.environ["EFFECTS_FOLDER"])

_lock = threading.Lock()
_passes = 0


def crash_point(name: str) -> None:
    """End the process if this is the chosen point and the chosen pass."""
    global _passes
    if name != POINT:
        return
    with _lock:
        _passes += 1
        if _passes < ON_PASS:
            return
        try:
            marker = os.open(FOLDER / "crashed", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return
        os.write(marker, name.encode())
        os.fsync(marker)
        os.kill(os.getpid(), signal.SIGKILL)


def install(webhooks: Webhooks) -> None:
    """Wrap the inbox of `webhooks`."""
    inbox: Any = webhooks.inbox
    add, claim, settle_all = inbox.add, inbox.claim, inbox.settle_all

    def add_with_points(entry: Any) -> Future[Any]:
        crash_point("after verify")
        committed, passed_on = add(entry), Future()

        def pass_on(done: Future[Any]) -> None:
            if done.exception() is not None:
                passed_on.set_exception(done.exception())
                return
            crash_point("after commit, before the answer")
            passed_on.set_result(done.result())

        committed.add_done_callback(pass_on)
        return passed_on

    def claim_with_point(*arguments: Any) -> Any:
        claims = claim(*arguments)
        if claims:
            crash_point("after claim")
        return claims

    def settle_all_with_point(*arguments: Any) -> Any:
        crash_point("after handler, before settle")
        return settle_all(*arguments)

    inbox.add, inbox.claim, inbox.settle_all = add_with_points, claim_with_point, settle_all_with_point
    if webhooks.spool is not None:
        install_around_the_move(webhooks.spool)


def install_in_sqlalchemy(engine: Engine) -> None:
    """Add the points to the transactions of an engine."""

    def after_each(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        # SQLAlchemy does not execute each insert.
        if not statement.startswith("INSERT"):
            crash_points_after(statement, "envoyou_inbox")

    event.listen(engine, "after_cursor_execute", after_each)


def install_in_insert() -> None:
    """Add a point to the transactions that store events, before they are committed."""
    insert_new = acceptance.insert_new

    def insert_with_point(*arguments: Any) -> Any:
        new = insert_new(*arguments)
        crash_point("in the insert")
        return new

    acceptance.insert_new = insert_with_point


def install_in_django(created: Signal) -> None:
    """Add the points to the transactions of every new connection of Django."""

    def after_each(execute: Any, sql: str, *arguments: Any) -> Any:
        result = execute(sql, *arguments)
        crash_points_after(sql, "envoyou_processed_event")
        return result

    def wrap(connection: Any, **_: Any) -> None:
        if after_each not in connection.execute_wrappers:
            connection.execute_wrappers.append(after_each)

    created.connect(wrap, weak=False)


def crash_points_after(statement: str, inbox: str) -> None:
    """End the process after a statement that changes the table `inbox`, if this is the chosen point."""
    statement = statement.replace('"', "")
    if statement.startswith(f"INSERT INTO {inbox}"):
        crash_point("in the insert")
    elif statement.startswith(f"UPDATE {inbox} SET status") and "settled_at" in statement:
        crash_point("in settle")
        crash_point("in the handler's transaction that settles")
    elif statement.startswith(f"UPDATE {inbox} SET progress"):
        crash_point("in the handler's transaction, after its record")


def install_around_the_move(spool: Any) -> None:
    """Wrap the methods of a spool that move batches. Single events do not count: a relay probes the inbox with them."""
    claim, remove = spool.claim, spool.remove

    def claim_with_point(*arguments: Any) -> Any:
        claims = claim(*arguments)
        if len(claims) > 1:
            crash_point("after events were taken from the spool")
        return claims

    def remove_with_points(claims: Any) -> None:
        if len(claims) > 1:
            crash_point("after events were moved, before they left the spool")
        remove(claims)
        if len(claims) > 1:
            crash_point("after events left the spool")

    spool.claim, spool.remove = claim_with_point, remove_with_points


class AfterTheAnswer:
    """WSGI: end the process once the server has sent the whole response."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return _ClosingCrashes(self._app(environ, start_response), environ["REQUEST_METHOD"])


class _ClosingCrashes:
    def __init__(self, body: Any, method: str) -> None:
        self._body = body
        self._method = method

    def __iter__(self) -> Any:
        return iter(self._body)

    def close(self) -> None:
        if hasattr(self._body, "close"):
            self._body.close()
        if self._method == "POST":
            crash_point("after the answer")


class AfterTheAnswerASGI:
    """ASGI: end the process once the server has received the whole response from the app."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_and_crash(message: Any) -> None:
            await send(message)
            if message["type"] == "http.response.body" and scope["method"] == "POST":
                crash_point("after the answer")

        await self._app(scope, receive, send_and_crash if scope["type"] == "http" else send)
