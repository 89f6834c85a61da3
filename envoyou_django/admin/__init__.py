"""The admin: what became of each event, and the means to put it right."""

from __future__ import annotations

from envoyou_django.admin.events import ProcessedEventAdmin

__all__ = ["ProcessedEventAdmin"]
