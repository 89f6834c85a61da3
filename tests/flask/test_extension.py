"""The extension: settings in `app.config`, and several apps in one process, each with its own `Webhooks`."""

from __future__ import annotations

import gc
import weakref
from queue import Queue

import pytest
from flask import Blueprint, Flask, current_app, url_for
from prometheus_client import CollectorRegistry

from envoyou_core import ConfigurationError, Handlers, RetryPolicy, Webhooks
from envoyou_core.observability import prometheus
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_flask import Envoyou
from tests.flask.conftest import PATH, SECRET, deliver

PATIENCE = 20


@pytest.fixture
def make_app(tmp_path):
    """Make a configured app; its worker is stopped at the end."""
    made = []

    def make(name="app", **settings):
        app = Flask(name, **{key: settings.pop(key) for key in ("subdomain_matching",) if key in settings})
        app.config["ENVOYOU_WEBHOOK_SECRET"] = SECRET
        app.config["ENVOYOU_INBOX"] = f"sqlite:///{tmp_path / f'{name}.db'}"
        app.config.from_mapping(settings)
        made.append(app)
        return app

    yield make
    for app in made:
        for webhooks in app.extensions.get("envoyou", {}).values():
            webhooks.stop()
            webhooks.inbox.close()


def webhooks_of(app) -> Webhooks:
    return app.extensions["envoyou"]["envoyou"]


# Settings


def test_settings_come_from_app_config(make_app):
    app = make_app(
        ENVOYOU_HANDOFF="manual",
        ENVOYOU_NAME="ours",
        ENVOYOU_MAX_BODY_SIZE=2_000,
        ENVOYOU_RETRY=RetryPolicy(max_attempts=1),
    )
    envoyou = Envoyou(app)

    @envoyou.on("*")
    def fail(event):
        raise RuntimeError

    event = sample_event()
    assert deliver(app, event).json == {"received": True}
    assert deliver(app, sample_event(object={"note": 3_000 * "x"})).status_code == 413
    webhooks = webhooks_of(app)
    assert webhooks.name == "ours"
    assert webhooks.drain() == 1
    assert webhooks.inbox.get(event.id).status == "dead"


def test_a_setting_instruments_the_webhooks_of_the_app(make_app, monkeypatch):
    registry = CollectorRegistry()
    monkeypatch.setattr(prometheus, "REGISTRY", registry)
    app = make_app(ENVOYOU_HANDOFF="manual", ENVOYOU_INSTRUMENT=["prometheus"])
    Envoyou(app)
    deliver(app)
    accepted = {"outcome": "accepted", "reason": ""}
    assert registry.get_sample_value("envoyou_webhook_deliveries_total", accepted) == 1


def test_rotated_secrets_of_the_app_are_accepted(make_app):
    app = make_app(ENVOYOU_HANDOFF="manual", ENVOYOU_WEBHOOK_SECRET=["whsec_newer", "whsec_older"])
    Envoyou(app)
    assert deliver(app).status_code == 401
    delivery = sign_delivery(sample_event(), secret="whsec_older")
    assert app.test_client().post(PATH, data=delivery.body, headers=delivery.headers).status_code == 200


def test_secrets_by_webhook_id_or_in_a_file(make_app, tmp_path):
    (tmp_path / "secret").write_text("whsec_of_acme\n")

    async def later(webhook_id):
        return "whsec_of_acme"

    for settings in (
        {"ENVOYOU_WEBHOOK_SECRET": {"wh_acme": "whsec_of_acme"}},
        {"ENVOYOU_WEBHOOK_SECRET": later},
        {"ENVOYOU_WEBHOOK_SECRET": None, "ENVOYOU_WEBHOOK_SECRET_FILE": tmp_path / "secret"},
    ):
        app = make_app(ENVOYOU_HANDOFF="manual", **settings)
        Envoyou(app)
        for secret, status in (("whsec_of_acme", 200), ("whsec_another", 401)):
            delivery = sign_delivery(sample_event(webhook_id="wh_acme"), secret=secret)
            answer = app.test_client().post(PATH, data=delivery.body, headers=delivery.headers)
            assert answer.status_code == status


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"ENVOYOU_WEBHOOK_SECRETS": "s"},
            "unknown setting 'ENVOYOU_WEBHOOK_SECRETS'; did you mean 'ENVOYOU_WEBHOOK_SECRET'",
        ),
        ({"ENVOYOU_URL_PREFX": "/x"}, "unknown setting 'ENVOYOU_URL_PREFX'; did you mean 'ENVOYOU_URL_PREFIX'"),
        ({"ENVOYOU_TOLERANCE": "soon"}, "the setting ENVOYOU_TOLERANCE must be a number"),
        ({"ENVOYOU_WEBHOOK_SECRET": ""}, "secret"),
        ({"ENVOYOU_WEBHOOK_SECRET": None}, "secret"),
        ({"ENVOYOU_WEBHOOK_SECRET": "whsec_1\n"}, "ends with U.000A"),
        ({"ENVOYOU_WEBHOOK_SECRET_FILE": "/nowhere"}, "either ENVOYOU_WEBHOOK_SECRET or ENVOYOU_WEBHOOK_SECRET_FILE"),
        ({"ENVOYOU_WEBHOOK_SECRET": None, "ENVOYOU_WEBHOOK_SECRET_FILE": "/nowhere"}, "ENVOYOU_WEBHOOK_SECRET_FILE"),
    ],
)
def test_an_invalid_setting_is_refused_by_init_app(make_app, settings, message):
    with pytest.raises(ConfigurationError, match=message):
        Envoyou(make_app(**settings))


def test_an_app_without_a_secret_is_refused():
    with pytest.raises(ConfigurationError, match=r"set the environment variable ENVOYOU_WEBHOOK_SECRET to "):
        Envoyou(Flask("app"))


def test_what_the_app_does_not_configure_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("ENVOYOU_INBOX", f"sqlite:///{tmp_path / 'inbox.db'}")
    monkeypatch.setenv("ENVOYOU_HANDOFF", "manual")
    monkeypatch.setenv("ENVOYOU_URL_PREFIX", "/hooks")
    monkeypatch.setenv("ENVOYOU_NAME", "theirs")
    app = Flask("app")
    app.config["ENVOYOU_NAME"] = "ours"
    Envoyou(app)
    event = sample_event()
    delivery = sign_delivery(event, secret=SECRET)
    assert app.test_client().post("/hooks", data=delivery.body, headers=delivery.headers).status_code == 200
    assert webhooks_of(app).name == "ours"
    assert webhooks_of(app).inbox.get(event.id) is not None
    webhooks_of(app).inbox.close()


def test_an_app_cannot_be_initialised_twice(make_app):
    app = make_app(ENVOYOU_HANDOFF="manual")
    Envoyou(app)
    with pytest.raises(ConfigurationError, match="already initialised for the app 'app'"):
        Envoyou().init_app(app)


# Paths


def test_the_path_is_the_default_the_configured_or_the_given_one(make_app):
    envoyou = Envoyou()
    usual, configured, given = (make_app(name, ENVOYOU_HANDOFF="manual") for name in ("usual", "configured", "given"))
    envoyou.init_app(usual)
    for app in (configured, given):
        app.config["ENVOYOU_URL_PREFIX"] = "/configured"
    envoyou.init_app(configured)
    envoyou.init_app(given, url_prefix="/given")
    for app, path in ((usual, PATH), (configured, "/configured"), (given, "/given")):
        assert deliver(app, path=path).status_code == 200
        assert deliver(app, path=f"{path}/").status_code == 200
        assert {deliver(app, path=other).status_code for other in {PATH, "/configured", "/given"} - {path}} == {404}


@pytest.mark.parametrize("configured", [True, False])
def test_a_subdomain(make_app, configured):
    app = make_app(subdomain_matching=True, ENVOYOU_HANDOFF="manual", SERVER_NAME="example.com")
    if configured:
        app.config["ENVOYOU_SUBDOMAIN"] = "hooks"
        Envoyou(app)
    else:
        Envoyou().init_app(app, subdomain="hooks")
    assert deliver(app, base_url="http://hooks.example.com").status_code == 200
    assert deliver(app, base_url="http://example.com").status_code == 404


def test_nested_blueprints_of_several_apps(make_app):
    envoyou = Envoyou()
    inner, outer = Blueprint("inner", "inner"), Blueprint("outer", "outer")
    inner.register_blueprint(envoyou.create_blueprint(), url_prefix="/envoyou")
    outer.register_blueprint(inner, url_prefix="/inner")
    for name in ("first", "second"):
        app = make_app(name, ENVOYOU_HANDOFF="manual", ENVOYOU_WEBHOOK_SECRET=f"whsec_{name}")
        app.register_blueprint(outer, url_prefix="/outer")
        envoyou.init_app(app, route=False)
        delivery = sign_delivery(sample_event(), secret=f"whsec_{name}")
        for path, status in (("/outer/inner/envoyou", 200), ("/outer/inner/envoyou/", 200), (PATH, 404)):
            answer = app.test_client().post(path, data=delivery.body, headers=delivery.headers)
            assert answer.status_code == status
        with app.test_request_context():
            assert url_for("outer.inner.envoyou.receive") == "/outer/inner/envoyou/"


def test_webhooks_of_an_app_that_is_not_initialised():
    envoyou = Envoyou()
    with Flask("bare").app_context(), pytest.raises(ConfigurationError, match="not initialised for the app 'bare'"):
        _ = envoyou.webhooks


# Several apps


def test_each_app_handles_its_own_events_in_its_own_context(make_app):
    envoyou = Envoyou()
    handled = Queue()

    @envoyou.on("user.created")
    def note(event):
        handled.put((current_app.name, event.id))

    @envoyou.on("user.created")
    async def note_too(event):
        handled.put((current_app.name, event.id))

    apps = [make_app(name) for name in ("first", "second", "third")]
    for app in apps:
        envoyou.init_app(app)
    events = {app.name: sample_event("user.created") for app in apps}
    for app in apps:
        assert deliver(app, events[app.name]).status_code == 200
    seen = [handled.get(timeout=PATIENCE) for _ in range(6)]
    assert sorted(seen) == sorted((name, event.id) for name, event in events.items() for _ in range(2))
    assert len({id(webhooks_of(app)) for app in apps}) == 3
    for app in apps:
        with app.app_context():
            assert envoyou.webhooks is webhooks_of(app)
            assert [record.event.id for record in envoyou.webhooks.inbox.list()] == [events[app.name].id]


def test_registrations_after_init_app_are_effective(make_app):
    envoyou = Envoyou()
    app = make_app(ENVOYOU_HANDOFF="manual", ENVOYOU_RETRY_MAX_ATTEMPTS=1)
    seen = []
    envoyou.on_dead(lambda event, error: seen.append("dead"))
    envoyou.init_app(app)
    envoyou.on("user.created", name="note")(lambda event: seen.append(event.id))
    envoyou.on("user.deleted", name="fail")(lambda event: 1 / 0)
    envoyou.on_dead(lambda event, error: seen.append(event.id))
    events = [sample_event("user.created"), sample_event("user.deleted")]
    for event in events:
        deliver(app, event)
    assert webhooks_of(app).drain() == 2
    assert seen == [events[0].id, "dead", events[1].id]
    with pytest.raises(ConfigurationError, match="two handlers"):
        envoyou.on("user.created", name="note")(print)


def test_registries_and_listeners_are_added_to_all_apps(make_app):
    envoyou, billing, seen = Envoyou(), Handlers(), []
    app = make_app(ENVOYOU_HANDOFF="manual")
    billing.on("*", name="fail")(lambda event: 1 / 0)
    billing.on_dead(lambda event, error: seen.append(error))
    app.config["ENVOYOU_RETRY_MAX_ATTEMPTS"] = 1
    envoyou.include(billing)
    envoyou.init_app(app)
    envoyou.subscribe(lambda notice: seen.append(type(notice).__name__))
    deliver(app)
    assert webhooks_of(app).drain() == 1
    assert seen[0] == "Accepted"
    assert seen[-1] == "ZeroDivisionError: division by zero"


def test_a_handler_that_the_inbox_does_not_support_is_refused(make_app):
    envoyou = Envoyou()
    envoyou.on("*", name="share")(lambda event, connection: None)
    with pytest.raises(ConfigurationError, match="connection"):
        envoyou.init_app(make_app(ENVOYOU_INBOX="memory:"))


def test_the_extension_does_not_keep_an_app_alive(make_app, tmp_path):
    envoyou = Envoyou()
    app = Flask("app")
    app.config.from_mapping(ENVOYOU_WEBHOOK_SECRET=SECRET, ENVOYOU_INBOX="memory:", ENVOYOU_HANDOFF="manual")
    envoyou.init_app(app)
    deliver(app)
    references = weakref.ref(app), weakref.ref(webhooks_of(app))
    del app
    gc.collect()
    assert [reference() for reference in references] == [None, None]
