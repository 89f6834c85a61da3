"""A local EnvoyOU platform in one process: the management API, and a sender that delivers signed events.

Requires the extra `simulator`.
"""

from __future__ import annotations

from envoyou_core.simulator.outbox import Attempt
from envoyou_core.simulator.platform import Platform
from envoyou_core.simulator.schedule import RetrySchedule
from envoyou_core.simulator.trouble import Trouble
from envoyou_core.simulator.webhook import Webhook

__all__ = ["Attempt", "Platform", "RetrySchedule", "Trouble", "Webhook"]
