"""What happens when EnvoyOU tells us something."""

from __future__ import annotations

from flask import current_app

from envoyou_core import Event, Login, User, Webhooks

# ENVOYOU_WEBHOOK_SECRET, ENVOYOU_INBOX and the other ENVOYOU_ settings. The inbox is sqlite:///envoyou.db by default.
webhooks = Webhooks.from_env()


@webhooks.on("user.created")
def welcome(event: Event) -> None:
    user = event.data.as_type(User)
    current_app.logger.info("welcome, %s", user.email)


@webhooks.on("auth.failed")
async def count_failure(event: Event, attempt: int) -> None:
    login = event.data.as_type(Login)
    current_app.logger.warning("a login of %s from %s failed (attempt %d)", login.user_id, login.ip_address, attempt)
