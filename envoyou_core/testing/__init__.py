"""Support for users' tests: sample events, and deliveries that are signed as the platform signs them."""

from __future__ import annotations

from envoyou_core.testing.deliveries import SAMPLE_WEBHOOK_ID, Delivery, sample_event, sign_delivery

__all__ = ["SAMPLE_WEBHOOK_ID", "Delivery", "sample_event", "sign_delivery"]
