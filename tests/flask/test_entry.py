"""The entry that wraps an application with a blueprint, as in the documentation."""

import threading

import pytest
from flask import Flask, current_app

from envoyou_core import Webhooks
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_core.wsgi import webhooks_entry
from envoyou_flask import create_blueprint
from tests.flask.conftest import SECRET

PATH = "/webhooks/envoyou"
PATIENCE = 20


def build(webhooks):
    app = Flask("shop")
    app.hooks = []
    app.before_request(lambda: app.hooks.append("ran"))
    app.get("/")(lambda: "home")
    app.register_blueprint(create_blueprint(webhooks), url_prefix=PATH)
    app.wsgi_app = webhooks_entry(app.wsgi_app, webhooks, path=PATH)
    return app


def deliver(app, path=PATH):
    delivery = sign_delivery(sample_event("user.created"), secret=SECRET)
    return app.test_client().post(path, data=delivery.body, headers=delivery.headers)


@pytest.mark.parametrize("path", [PATH, f"{PATH}/"])
def test_deliveries_bypass_the_application(path):
    app = build(webhooks := Webhooks(secret=SECRET, inbox="memory:", handoff="manual"))
    assert deliver(app, path).json == {"received": True}
    assert app.hooks == []
    assert webhooks.inbox.stats().total == 1


def test_pages_reach_the_application():
    app = build(Webhooks(secret=SECRET, inbox="memory:", handoff="manual"))
    assert app.test_client().get("/").text == "home"
    assert app.test_client().get(f"{PATH}/x").status_code == 404
    assert app.hooks == ["ran", "ran"]


def test_handlers_and_a_secret_callable_run_in_the_context_of_the_application():
    seen = []
    done = threading.Event()

    def secret(webhook_id):
        seen.append(("secret", current_app.name))
        return SECRET

    webhooks = Webhooks(secret=secret, inbox="memory:")

    @webhooks.on("user.created")
    def handle(event):
        seen.append(("handler", current_app.name))
        done.set()

    app = build(webhooks)
    try:
        assert deliver(app).json == {"received": True}
        assert done.wait(PATIENCE)
    finally:
        webhooks.stop()
    assert seen == [("secret", "shop"), ("handler", "shop")]
