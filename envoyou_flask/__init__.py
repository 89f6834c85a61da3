"""EnvoyOU webhooks in Flask: a blueprint, or an extension that is configured by `app.config`."""

from __future__ import annotations

from envoyou_flask.blueprint import create_blueprint, create_health_blueprint
from envoyou_flask.extension import Envoyou

__all__ = ["Envoyou", "create_blueprint", "create_health_blueprint"]
