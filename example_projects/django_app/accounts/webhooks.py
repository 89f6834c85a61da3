"""Keeps Django's users in step with EnvoyOU's. Whatever is done here may be done again."""

from __future__ import annotations

import logging

from django.contrib.auth.models import User

from envoyou_core import Event
from envoyou_django import webhooks

log = logging.getLogger("django.accounts")


@webhooks.on("user.created", "user.updated", "user.verified")
def keep_account(event: Event) -> None:
    user = event.data.object
    account, _ = User.objects.update_or_create(username=user["id"], defaults={"email": user["email"]})
    log.info("kept %s", account.email)


@webhooks.on("user.deleted")
def close_account(event: Event) -> None:
    User.objects.filter(username=event.data.object["id"]).update(is_active=False)


@webhooks.on("auth.login")
async def note_login(event: Event) -> None:
    account = await User.objects.aget(username=event.data.object["user_id"])
    account.last_login = event.created_at
    await account.asave(update_fields=["last_login"])
