"""Flask under gunicorn, whose workers are forked."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from sqlalchemy import create_engine, text

from envoyou_core import Webhooks
from envoyou_core.testing import sample_event, sign_delivery
from tests.flask.conftest import PATH, SECRET

PATIENCE = 30

APP = f"""
import os
from pathlib import Path

from flask import Flask

from envoyou_core import Webhooks
from envoyou_flask import create_blueprint

webhooks = Webhooks(secret={SECRET!r})


@webhooks.on("*")
def handle(event):
    Path("handled.part").write_text(f"{{os.getpid()}} {{event.id}}")
    Path("handled.part").rename("handled")


app = Flask(__name__)
app.register_blueprint(create_blueprint(webhooks), url_prefix={PATH!r})
app.add_url_rule("/pid", view_func=lambda: str(os.getpid()))
"""


WITH_DATABASE = f"""
import os

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from envoyou_flask import Envoyou


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)
envoyou = Envoyou(db=db)


class Effect(Base):
    __tablename__ = "envoyou_test_effect"

    id: Mapped[int] = mapped_column(primary_key=True)
    event: Mapped[str]
    pid: Mapped[int]


@envoyou.on("*")
def handle(event):
    db.session.add(Effect(event=event.id, pid=os.getpid()))


app = Flask(__name__)
app.config.from_mapping(
    SQLALCHEMY_DATABASE_URI=os.environ["DATABASE"],
    ENVOYOU_WEBHOOK_SECRET={SECRET!r},
    ENVOYOU_NAME=os.environ["NAME"],
)
db.init_app(app)
envoyou.init_app(app)
with app.app_context():
    # The tables exist. Checking for them opens connections, which are open when a preloaded app is forked.
    db.create_all()
    envoyou.webhooks.inbox.migrate()


@app.post("/pages")
def page():
    db.session.add(Effect(event="a page", pid=os.getpid()))
    db.session.commit()
    return "written"
"""


@contextmanager
def gunicorn(folder, *options, app=APP, **environment):
    """Serve the app; yield the server's address and its process."""
    (folder / "app.py").write_text(app)
    with socket.create_server(("127.0.0.1", 0)) as listening, (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--bind", f"fd://{listening.fileno()}", *options, "app:app"],
            cwd=folder,
            env=os.environ | environment,
            pass_fds=[listening.fileno()],
            stderr=log,
        )
        try:
            yield listening.getsockname(), server
        finally:
            server.terminate()
            assert server.wait(PATIENCE) == 0, (folder / "server.log").read_text()


def request(address, method, path, **content):
    connection = http.client.HTTPConnection(*address, timeout=PATIENCE)
    try:
        connection.request(method, path, **content)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def handled_in(folder):
    deadline = time.monotonic() + PATIENCE
    while not (folder / "handled").exists():
        assert time.monotonic() < deadline, (folder / "server.log").read_text()
        time.sleep(0.05)
    pid, event_id = (folder / "handled").read_text().split()
    return int(pid), event_id


@pytest.mark.parametrize("options", [[], ["--threads", "4"]], ids=["sync", "gthread"])
def test_the_worker_runs_in_the_forked_process_of_a_preloaded_app(tmp_path, options):
    event = sample_event()
    earlier = Webhooks(secret=SECRET, inbox=f"sqlite:///{tmp_path / 'envoyou.db'}", handoff="manual")
    delivery = sign_delivery(event, secret=SECRET)
    with gunicorn(tmp_path, "--preload", *options) as (address, server):
        assert request(address, "POST", PATH, body=delivery.body, headers=delivery.headers)[0] == 200
        status, pid = request(address, "GET", "/pid")
        assert (status, int(pid)) != (200, server.pid)
        assert handled_in(tmp_path) == (int(pid), event.id)
    assert earlier.inbox.get(event.id).attempts == 1
    earlier.inbox.close()


@pytest.mark.parametrize("options", [[], ["--threads", "4"]], ids=["sync", "gthread"])
def test_chunked_bodies_arrive_complete(tmp_path, options):
    event = sample_event(object={"note": 200_000 * "x"})
    delivery = sign_delivery(event, secret=SECRET)
    chunks = (delivery.body[start : start + 10_000] for start in range(0, len(delivery.body), 10_000))
    headers = {**delivery.headers, "Transfer-Encoding": "chunked"}
    with gunicorn(tmp_path, *options) as (address, _server):
        answer = request(address, "POST", PATH, body=chunks, headers=headers, encode_chunked=True)
        assert answer == (200, '{"received": true}')
        assert handled_in(tmp_path)[1] == event.id


@pytest.fixture
def url(request, tmp_path):
    return f"sqlite:///{tmp_path / 'app.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("sqlite", ["--preload"]),
        ("sqlite", ["--threads", "4"]),
        pytest.param("postgresql", ["--preload", "--threads", "4"], marks=pytest.mark.service),
    ],
    indirect=["url"],
    ids=["SQLite, sync, preloaded", "SQLite, gthread", "PostgreSQL, gthread, preloaded"],
)
def test_processes_share_the_apps_database(tmp_path, url, options):
    """Pages and handlers write to one database from two processes; each event has its effect once."""
    events = [sample_event("user.created") for _ in range(30)]
    engine = create_engine(url)

    def send(event):
        delivery = sign_delivery(event, secret=SECRET)
        written = request(address, "POST", "/pages")
        return written[0], request(address, "POST", PATH, body=delivery.body, headers=delivery.headers)[0]

    def effects():
        with engine.connect() as connection:
            return connection.execute(text("SELECT event, pid FROM envoyou_test_effect")).all()

    try:
        environment = {"DATABASE": url, "NAME": tmp_path.name[:64]}
        # Create the tables once, as a deployment does, because two processes that create them concurrently would fail.
        subprocess.run([sys.executable, "-c", WITH_DATABASE], cwd=tmp_path, env=os.environ | environment, check=True)
        with gunicorn(tmp_path, "--workers", "2", *options, app=WITH_DATABASE, **environment) as (address, server):
            with ThreadPoolExecutor(8) as senders:
                assert set(senders.map(send, events)) == {(200, 200)}
            deadline = time.monotonic() + PATIENCE
            while len(found := effects()) < 2 * len(events):
                assert time.monotonic() < deadline, (tmp_path / "server.log").read_text()
                time.sleep(0.1)
            assert server.pid not in {effect.pid for effect in found}
        assert Counter(effect.event for effect in effects()) == {"a page": len(events), **{it.id: 1 for it in events}}
        assert "Traceback" not in (tmp_path / "server.log").read_text()
    finally:
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE envoyou_test_effect"))
        engine.dispose()
