"""EnvoyOU webhooks in Flask: a blueprint in front of a durable inbox."""

from __future__ import annotations

from envoyou_flask.blueprint import create_blueprint

__all__ = ["create_blueprint"]
