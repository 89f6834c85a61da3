"""Alerts: rules over what is counted and stored, evaluated by one process at a time.

See the guide, "Monitoring and Analytics".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from envoyou_core.alerts.config import Alerts

if TYPE_CHECKING:
    from envoyou_core.alerts.current import CurrentAlert
    from envoyou_core.alerts.states import Alert

__all__ = ["Alert", "Alerts", "CurrentAlert"]


def __getattr__(name: str) -> Any:
    if name == "Alert":
        from envoyou_core.alerts.states import Alert

        return Alert
    if name == "CurrentAlert":
        from envoyou_core.alerts.current import CurrentAlert

        return CurrentAlert
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
