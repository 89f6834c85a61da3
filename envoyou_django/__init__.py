"""Receive EnvoyOU webhooks in Django: one app, one setting, one line in the URLs.

`webhooks` is the project's `Webhooks`, made from the setting `ENVOYOU` when it is first used. Handlers in any app's
`webhooks.py` are found by themselves:

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
"""The project's `Webhooks`, over the model `ProcessedEvent`. It may be imported before the settings are known."""
