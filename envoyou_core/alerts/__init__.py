"""Alerts: rules over what is counted and stored, evaluated by one process at a time.

See the guide, "Monitoring and Analytics".
"""

from __future__ import annotations

from envoyou_core.alerts.config import Alerts
from envoyou_core.alerts.current import CurrentAlert
from envoyou_core.alerts.states import Alert

__all__ = ["Alert", "Alerts", "CurrentAlert"]
