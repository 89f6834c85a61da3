"""The admin: inspect events, requeue them, mark them dead or run them now."""

from __future__ import annotations

from envoyou_django.admin.events import ProcessedEventAdmin

__all__ = ["ProcessedEventAdmin"]
