"""A Flask app whose worker is started at import: under a server that loads it before it forks, too early."""

from __future__ import annotations

from flask_app import app
from hooks import webhooks

__all__ = ["app"]

webhooks.start()
