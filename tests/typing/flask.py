"""What a type checker must make of a Flask application. It is checked by mypy, and never run."""

from typing import assert_type

from flask import Blueprint, Flask

from envoyou_core import Webhooks
from envoyou_core.wsgi import webhooks_entry
from envoyou_flask import create_blueprint

webhooks = Webhooks(secret="whsec_1")

app = Flask(__name__)
app.register_blueprint(create_blueprint(webhooks), url_prefix="/webhooks/envoyou")
assert_type(create_blueprint(webhooks), Blueprint)
create_blueprint("whsec_1")  # type: ignore[arg-type]
webhooks_entry(app.wsgi_app, webhooks, path="/webhooks/envoyou")
webhooks_entry(app, webhooks)
