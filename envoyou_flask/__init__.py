"""EnvoyOU webhooks in Flask: a blueprint in front of a durable inbox.

>>> from envoyou_core import Webhooks
>>> from envoyou_flask import create_blueprint
>>> blueprint = create_blueprint(Webhooks(secret="whsec_test", inbox="memory:"))
"""

from __future__ import annotations

from envoyou_flask.blueprint import create_blueprint

__all__ = ["create_blueprint"]
