"""What happens when EnvoyOU tells us something."""

from __future__ import annotations

import os

import httpx
import store

from envoyou_core import Event, Login, User, Webhooks

# ENVOYOU_WEBHOOK_SECRET, ENVOYOU_INBOX and the other ENVOYOU_ settings. The inbox is sqlite:///envoyou.db by default.
webhooks = Webhooks.from_env()


@webhooks.on("user.created", "user.updated", "user.verified")
def keep_user(event: Event) -> None:
    # Events of one user may be handled in any order: the store keeps what is newest.
    user = event.data.as_type(User)
    store.put_user(
        user.id,
        email=user.email or "",
        name=user.name or "",
        verified=bool(user.email_verified),
        changed=event.created,
    )


@webhooks.on("user.deleted")
def forget_user(event: Event) -> None:
    store.delete_user(event.data.as_type(User).id, changed=event.created)


@webhooks.on("auth.*")
def note_in_audit_trail(event: Event) -> None:
    # event.id is the idempotency key: a second run leaves no second entry.
    login = event.data.as_type(Login)
    store.put_audit_entry(
        event.id,
        user_id=login.user_id,
        what=event.type.removeprefix("auth."),
        address=login.ip_address or "",
        at=event.created,
    )


@webhooks.on("system.*")
def post_notice(event: Event) -> None:
    subject = event.data.object
    store.put_notice(
        subject["id"],
        what=event.type.removeprefix("system."),
        title=subject.get("title", ""),
        changed=event.created,
    )


class OnCallError(Exception):
    """Its text, and so the log and the inbox, must not show the URL: such URLs are often secret."""


@webhooks.on("api.*", "system.incident")
async def tell_on_call(event: Event) -> None:
    """On the app's own event loop. Where the service fails, so does the handler, and it is tried again."""
    if not (url := os.environ.get("ON_CALL_URL")):
        return
    async with httpx.AsyncClient(timeout=10) as client:
        response = await client.post(
            url, json={"what": event.type, "about": event.data.object}, headers={"Idempotency-Key": event.id}
        )
    if response.is_error:
        raise OnCallError(f"it answered {response.status_code}")
