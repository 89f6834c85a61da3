"""Under gunicorn, whose workers are forked."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

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


@contextmanager
def gunicorn(folder, *options):
    """Serve the app; yields the server's address and its process."""
    (folder / "app.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as listening, (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--bind", f"fd://{listening.fileno()}", *options, "app:app"],
            cwd=folder,
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
def test_the_worker_lives_in_the_forked_process_although_the_app_was_preloaded(tmp_path, options):
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
def test_chunked_bodies_arrive_whole(tmp_path, options):
    event = sample_event(object={"note": 200_000 * "x"})
    delivery = sign_delivery(event, secret=SECRET)
    chunks = (delivery.body[start : start + 10_000] for start in range(0, len(delivery.body), 10_000))
    headers = {**delivery.headers, "Transfer-Encoding": "chunked"}
    with gunicorn(tmp_path, *options) as (address, _server):
        answer = request(address, "POST", PATH, body=chunks, headers=headers, encode_chunked=True)
        assert answer == (200, '{"received": true}')
        assert handled_in(tmp_path)[1] == event.id
