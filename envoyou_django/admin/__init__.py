"""The admin: inspect events, requeue them, mark them dead or run them now, and retry rejected deliveries."""

from __future__ import annotations

from envoyou_django.admin.events import ProcessedEventAdmin
from envoyou_django.admin.rejected import RejectedDeliveryAdmin

__all__ = ["ProcessedEventAdmin", "RejectedDeliveryAdmin"]
