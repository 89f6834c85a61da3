"""Sends alerts to the project's `ADMINS`."""

from __future__ import annotations

from django.core.mail import mail_admins

from envoyou_core.alerts import Alert

__all__ = ["mail_alert_to_admins"]


def mail_alert_to_admins(alert: Alert) -> None:
    """Send one message by the project's e-mail settings. Raises what the e-mail backend raises."""
    mail_admins(alert.title, f"{alert.text}\n\nFired at {alert.fired_at:%Y-%m-%d %H:%M:%S} UTC.\n")
