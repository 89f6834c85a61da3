"""The webhooks of the apps that configure theirs from the environment."""

from __future__ import annotations

import effects

from envoyou_core import Webhooks

webhooks = Webhooks.from_env()
webhooks.include(effects.handlers)
