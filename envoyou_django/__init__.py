"""Receive EnvoyOU webhooks in Django: one app, one setting, one line in the URLs.

`webhooks` is the project's `Webhooks`, made from the setting `ENVOYOU` on first use. Handlers in any app's
`webhooks.py` are discovered automatically:

    from envoyou_core import Event
    from envoyou_django import webhooks

    @webhooks.on("user.created")
    def welcome(event: Event) -> None: ...
"""

from __future__ import annotations

from typing import cast

from envoyou_core import Webhooks
from envoyou_django.project import project_webhooks

__all__ = ["webhooks"]

webhooks: Webhooks = cast(Webhooks, project_webhooks)
"""The project's `Webhooks`, whose inbox is the model `ProcessedEvent`. It can be imported before there are settings."""
