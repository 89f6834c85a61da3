"""EnvoyOU webhooks in Flask: a blueprint in front of a durable inbox, or an extension that `app.config` configures."""

from __future__ import annotations

from envoyou_flask.blueprint import create_blueprint
from envoyou_flask.extension import Envoyou

__all__ = ["Envoyou", "create_blueprint"]
