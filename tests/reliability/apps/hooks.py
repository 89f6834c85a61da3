"""Handlers with two kinds of effects, rows in the transaction of the inbox and lines in a file; and two bad ones."""

from __future__ import annotations

import asyncio
import os
import time

import crash_points
import scarce_disk
from effects import (
    FOLDER,
    HANDLERS,
    PLAIN_SECONDS,
    TRANSACTIONAL_SECONDS,
    bad_handlers,
    in_flight,
    leave_line,
    plain,
)
from sqlalchemy import Connection, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from envoyou_core import Event, Webhooks
from envoyou_core.inbox.sql.async_inbox import AsyncSqlInbox

if driver := os.environ.get("ASYNC_DRIVER"):
    engine = create_async_engine(make_url(os.environ["ENVOYOU_INBOX"]).set(drivername=driver))
    webhooks = Webhooks.from_env(inbox=AsyncSqlInbox(engine))
    crash_points.install_in_sqlalchemy(engine.sync_engine)
else:
    webhooks = Webhooks.from_env()
crash_points.install(webhooks)
crash_points.install_in_insert()
crash_points.install_in_sqlalchemy(webhooks.inbox._engine)  # type: ignore[attr-defined]
scarce_disk.install(webhooks)


def transactional(event: Event, connection: Connection) -> None:
    with in_flight():
        connection.execute(text("INSERT INTO effects (event_id) VALUES (:id)"), {"id": event.id})
        crash_points.crash_point("in a handler")
        time.sleep(TRANSACTIONAL_SECONDS)


async def transactional_on_the_loop(event: Event, connection: AsyncConnection) -> None:
    with in_flight():
        await connection.execute(text("INSERT INTO effects (event_id) VALUES (:id)"), {"id": event.id})
        crash_points.crash_point("in a handler")
        await asyncio.sleep(TRANSACTIONAL_SECONDS)


if driver:
    transactional = transactional_on_the_loop  # type: ignore[assignment]

# The last handler decides: after a plain one the event is settled separately, after the other in its transaction.
for name in HANDLERS:
    webhooks.on("user.*", name=name)({"plain": plain, "transactional": transactional}[name])


@webhooks.on("auth.*", ordered=True)
def take_time(event: Event) -> None:
    leave_line("turns", f"begin {event.data.object['user_id']} {event.id}")
    with in_flight():
        time.sleep(PLAIN_SECONDS)
        while (FOLDER / "hold").exists():
            time.sleep(0.02)


@webhooks.on("auth.*", ordered=True)
def take_effect(event: Event, connection: Connection, attempt: int) -> None:
    if attempt == 1 and event.data.object["fails_at_first"]:
        raise ConnectionError("not at the first attempt")
    row = {"user_id": event.data.object["user_id"], "event_id": event.id}
    connection.execute(text("INSERT INTO turns (user_id, event_id) VALUES (:user_id, :event_id)"), row)
    leave_line("turns", f"end {row['user_id']} {event.id}")


webhooks.include(bad_handlers)
