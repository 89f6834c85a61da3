"""Health probes and `doctor` in a Flask app."""

import json

from flask import Flask

from envoyou_core.inbox.processes import ProcessKind
from envoyou_flask import Envoyou, create_health_blueprint
from tests.flask.conftest import SECRET, make_app
from tests.flask.test_cli import run


def test_the_probes_of_a_blueprint(manual):
    app = make_app(manual)
    app.register_blueprint(create_health_blueprint(manual), url_prefix="/health")
    client = app.test_client()
    assert (client.get("/health/live").status_code, client.get("/health/live").json) == (200, {"status": "ok"})
    ready = client.get("/health/ready/")
    assert (ready.status_code, ready.json) == (200, {"status": "ok", "inbox": "ok", "spool": "none"})
    assert (ready.mimetype, ready.headers["Cache-Control"]) == ("application/json", "no-store")
    worker = client.get("/health/worker")
    assert (worker.status_code, worker.json["status"]) == (503, "unavailable")
    assert client.get("/health/secrets").status_code == 404
    assert client.post("/health/live").status_code == 405


def test_the_probes_of_the_extension(tmp_path):
    app = Flask("app")
    app.config.from_mapping(ENVOYOU_WEBHOOK_SECRET=SECRET, ENVOYOU_INBOX=f"sqlite:///{tmp_path}/inbox.db")
    app.config["ENVOYOU_HANDOFF"] = "manual"
    envoyou = Envoyou(app)
    app.register_blueprint(envoyou.create_health_blueprint(), url_prefix="/health")
    assert app.test_client().get("/health/ready").json["inbox"] == "ok"
    app.extensions["envoyou"]["envoyou"].inbox.close()


def test_doctor_checks_the_app(manual, monkeypatch):
    monkeypatch.setenv("ENVOYOU_BASE_URL", "http://127.0.0.1:9")
    manual.on("user.created", name="welcome")(lambda event: None)
    manual.inbox.open()
    process = manual._presence
    process.works()
    manual.inbox.beat(process.process)
    assert process.process.kind is ProcessKind.WORKER
    result = run(make_app(manual), "doctor", "--json")
    document = json.loads(result.stdout)
    levels = {finding["check"]: finding["level"] for finding in document["findings"]}
    assert (levels["inbox"], levels["writable"], levels["workers"], levels["handlers"]) == ("ok",) * 4
    # The secret of the tests can be guessed.
    assert (result.exit_code, document["problems"], levels["secret"]) == (1, 1, "problem")
