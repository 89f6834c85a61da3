"""Flask-WTF's CSRFProtect, which requires a token in every POST: the webhook is exempt, the rest of the app is not."""

from __future__ import annotations

import pytest
from flask import Blueprint, Flask
from flask_wtf import CSRFProtect

from envoyou_core.testing import sample_event
from envoyou_flask import create_blueprint
from tests.flask.conftest import PATH, deliver


def protect(app):
    app.secret_key = "secret"
    CSRFProtect(app)


def register(app, webhooks):
    app.register_blueprint(create_blueprint(webhooks), url_prefix=PATH)


def register_within_another(app, webhooks):
    parent = Blueprint("parent", "parent")
    parent.register_blueprint(create_blueprint(webhooks), url_prefix="/envoyou")
    app.register_blueprint(parent, url_prefix="/webhooks")


@pytest.mark.parametrize("register", [register, register_within_another])
@pytest.mark.parametrize("protected_first", [True, False])
def test_the_webhook_needs_no_token_and_the_rest_of_the_app_does(manual, register, protected_first):
    app = Flask("app")
    if protected_first:
        protect(app)
    register(app, manual)
    if not protected_first:
        protect(app)
    app.add_url_rule("/form", view_func=lambda: "done", methods=["POST"])

    event = sample_event()
    assert app.test_client().post("/form").status_code == 400
    # Over HTTP, and over HTTPS, for which Flask-WTF also checks the referrer.
    assert deliver(app, event).json == {"received": True}
    assert deliver(app, event, base_url="https://localhost").json == {"received": True, "duplicate": True}
    assert manual.inbox.get(event.id).event.body == event.body
    assert app.test_client().post("/form").status_code == 400
