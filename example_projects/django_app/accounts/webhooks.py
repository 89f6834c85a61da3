"""Synchronizes users with EnvoyOU and records their logins."""

from __future__ import annotations

import logging

from django.contrib.auth.hashers import make_password

import envoyou_core
from accounts.models import Login, User
from envoyou_core import Event
from envoyou_django import webhooks

log = logging.getLogger("accounts")


# The events of one user are handled in order, and late ones are skipped: a late update cannot reopen an account that
# `user.deleted` has closed.
@webhooks.on("user.created", "user.updated", "user.verified", stale="skip")
def keep_user(event: Event) -> None:
    person = event.data.as_type(envoyou_core.User)
    changes: dict[str, object] = {}
    if person.email is not None:
        changes["email"] = person.email
    if person.name is not None:
        changes["first_name"], _, changes["last_name"] = person.name.partition(" ")
    if event.type == "user.verified" or person.email_verified is not None:
        changes["is_verified"] = event.type == "user.verified" or person.email_verified
    # New users log in with EnvoyOU and have no password here.
    new = {"username": person.id, "password": make_password(None), **changes}
    User.objects.update_or_create(envoyou_id=person.id, defaults=changes, create_defaults=new)
    log.info("kept %s", person.id)


@webhooks.on("user.deleted", stale="skip")
def close_account(event: Event) -> None:
    person = event.data.as_type(envoyou_core.User)
    User.objects.filter(envoyou_id=person.id).update(is_active=False)
    log.info("closed %s", person.id)


@webhooks.on("auth.login", "auth.failed")
def note_login(event: Event) -> None:
    login = event.data.as_type(envoyou_core.Login)
    # If it overtakes the event that creates the user, it fails here and is retried.
    user = User.objects.get(envoyou_id=login.user_id)
    # The write and the record of its success are one transaction, so no login is recorded twice.
    Login.objects.create(
        event_id=event.id,
        user=user,
        at=login.timestamp or event.created_at,
        succeeded=event.type == "auth.login",
        ip_address=login.ip_address,
        country=(login.location.country if login.location else None) or "",
    )
