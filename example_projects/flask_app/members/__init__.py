"""Members of a site, kept in step with the users of EnvoyOU.

flask --app members run
"""

from __future__ import annotations

import os
from typing import Any

from flask import Flask

from members.models import db
from members.pages import pages
from members.webhooks import envoyou


def create_app(**config: Any) -> Flask:
    """Create the application; `config` overrides the environment, for tests."""
    app = Flask(__name__)
    app.config.from_mapping(
        SQLALCHEMY_DATABASE_URI=os.environ.get("DATABASE_URL", "sqlite:///members.db"),
        SQLALCHEMY_ENGINE_OPTIONS={"pool_pre_ping": True},
        ENVOYOU_WEBHOOK_SECRET=os.environ.get("ENVOYOU_WEBHOOK_SECRET"),
    )
    app.config.update(config)
    db.init_app(app)
    envoyou.init_app(app)
    app.register_blueprint(pages)
    with app.app_context():
        db.create_all()
    return app
