"""What a type checker must make of a Flask application. It is checked by mypy, and never run."""

from typing import assert_type

from flask import Blueprint, Flask
from flask_sqlalchemy import SQLAlchemy

from envoyou_core import Event, Webhooks
from envoyou_core.wsgi import health_app, webhooks_entry
from envoyou_flask import Envoyou, create_blueprint, create_health_blueprint

webhooks = Webhooks(secret="whsec_1")

app = Flask(__name__)
app.register_blueprint(create_blueprint(webhooks), url_prefix="/webhooks/envoyou")
assert_type(create_blueprint(webhooks), Blueprint)
create_blueprint("whsec_1")  # type: ignore[arg-type]
webhooks_entry(app.wsgi_app, webhooks, path="/webhooks/envoyou")
webhooks_entry(app, webhooks)
assert_type(create_health_blueprint(webhooks), Blueprint)
create_health_blueprint("whsec_1")  # type: ignore[arg-type]
webhooks_entry(health_app(webhooks), webhooks)

db = SQLAlchemy()
envoyou = Envoyou(db=db)
Envoyou(app, db=db)
Envoyou(db="sqlite:///app.db")  # type: ignore[arg-type]


@envoyou.on("user.created", atomic=False)
def welcome(event: Event) -> None: ...


@envoyou.on_dead
def alert(event: Event, error: str) -> None: ...


assert_type(envoyou.init_app(app), None)
envoyou.init_app(app, url_prefix="/hooks", subdomain="api", route=False)
envoyou.init_app(app, url_prefix=3)  # type: ignore[arg-type]
assert_type(envoyou.create_blueprint(), Blueprint)
assert_type(envoyou.webhooks, Webhooks)
