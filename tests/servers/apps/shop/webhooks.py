"""Found by autodiscovery."""

from __future__ import annotations

import effects

from envoyou_django import webhooks

webhooks.include(effects.handlers)
