"""What happens when EnvoyOU tells us something.

A handler that takes a `session` works in the transaction that records it as done: each event leaves its mark once, and
none of these has to ask whether it has been here before.
"""

from __future__ import annotations

import os

import httpx2
from database import Account, AuditEntry, Notice, engine
from sqlalchemy.ext.asyncio import AsyncSession

from envoyou_core import Event, Login, User, Webhooks
from envoyou_core.inbox.sql.async_inbox import AsyncSqlInbox

# ENVOYOU_WEBHOOK_SECRET, and the other ENVOYOU_ settings.
webhooks = Webhooks.from_env(inbox=AsyncSqlInbox(engine))


# With stale="skip", a late update neither overwrites a newer one nor restores a deleted user.
@webhooks.on("user.created", "user.updated", "user.verified", stale="skip")
async def keep_account(event: Event, session: AsyncSession) -> None:
    user = event.data.as_type(User)
    await session.merge(
        Account(
            id=user.id,
            email=user.email or "",
            name=user.name or "",
            verified=bool(user.email_verified),
            deleted=False,
        )
    )


@webhooks.on("user.deleted", stale="skip")
async def forget_account(event: Event, session: AsyncSession) -> None:
    await session.merge(Account(id=event.data.as_type(User).id, email="", name="", verified=False, deleted=True))


@webhooks.on("auth.*")
async def note_in_audit_trail(event: Event, session: AsyncSession) -> None:
    login = event.data.as_type(Login)
    session.add(
        AuditEntry(
            user_id=login.user_id,
            what=event.type.removeprefix("auth."),
            address=login.ip_address or "",
            at=event.created,
        )
    )


@webhooks.on("system.*", stale="skip")
async def post_notice(event: Event, session: AsyncSession) -> None:
    subject = event.data.object
    what = event.type.removeprefix("system.")
    await session.merge(Notice(id=subject["id"], what=what, title=subject.get("title", "")))


class OnCallError(Exception):
    """The on-call service failed. The message must not contain its URL, because such URLs are often secret."""


@webhooks.on("api.*", "system.incident")
async def tell_on_call(event: Event) -> None:
    """Notify the on-call service. This may happen again, so `event.id` is the idempotency key."""
    if not (url := os.environ.get("ON_CALL_URL")):
        return
    async with httpx2.AsyncClient(timeout=10) as client:
        response = await client.post(
            url, json={"what": event.type, "about": event.data.object}, headers={"Idempotency-Key": event.id}
        )
    if response.is_error:
        raise OnCallError(f"it answered {response.status_code}")
