"""Probes over HTTP: which one a path names, and the refusals. The answers themselves are in `reports`."""

from __future__ import annotations

from typing import Final

from envoyou_core.health.reports import Probe
from envoyou_core.http import WebhookResponse

__all__ = ["probe_in", "refusal_of"]

METHODS: Final = frozenset({"GET", "HEAD"})

NOT_FOUND: Final = WebhookResponse(404, b'{"error": "not_found"}')
METHOD_NOT_ALLOWED: Final = WebhookResponse(
    405, b'{"error": "method_not_allowed"}', (("Content-Type", "application/json"), ("Allow", "GET, HEAD"))
)


def probe_in(path: str) -> str:
    """Return the name of the probe, which is the last part of a path.

    Examples:
        >>> probe_in("/health/ready/")
        'ready'
    """
    return path.rstrip("/").rpartition("/")[2]


def refusal_of(method: str, probe: str) -> WebhookResponse | None:
    """Return why a request is refused: no such probe, or another method than GET and HEAD; `None` if it is not."""
    if probe not in set(Probe):
        return NOT_FOUND
    return None if method in METHODS else METHOD_NOT_ALLOWED
