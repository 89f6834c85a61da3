"""Metrics under gunicorn with two workers: any of them answers for all, and reads the database once."""

import os
import re
import subprocess
import sys
import time
import urllib.request

from envoyou_core.testing import sample_event, sign_delivery

SECRET = "whsec_of_two_workers"
APPLICATION = f"""
from envoyou_core import Webhooks
from envoyou_core.observability import prometheus
from envoyou_core.wsgi import webhooks_entry

webhooks = Webhooks(secret="{SECRET}", inbox="sqlite:///inbox.db", handoff="manual", instrument=["prometheus"])
metrics = prometheus.wsgi_app(webhooks)
app = webhooks_entry(metrics, webhooks, path="/webhooks/envoyou")
"""


def send(address, event):
    delivery = sign_delivery(event, secret=SECRET)
    request = urllib.request.Request(f"{address}/webhooks/envoyou", delivery.body, dict(delivery.headers))
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


def test_either_worker_of_gunicorn_answers_for_both(tmp_path):
    (tmp_path / "two_workers.py").write_text(APPLICATION)
    values = tmp_path / "values"
    values.mkdir()
    server = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "two_workers:app", "--bind=127.0.0.1:0", "--workers=2"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(values)},
    )
    try:
        for line in server.stderr:
            if listening := re.search(r"Listening at: (http://127.0.0.1:\d+)", line):
                break
        address, sent = listening[1], 0
        deadline = time.monotonic() + 60
        # Until both have served one: the operating system decides which of them takes a connection.
        while len([*values.glob("counter_*.db")]) < 2 or sent < 10:
            assert time.monotonic() < deadline
            send(address, sample_event())
            sent += 1
        for _ in range(4):
            with urllib.request.urlopen(f"{address}/metrics", timeout=30) as answer:
                text = answer.read().decode()
            assert f'envoyou_webhook_deliveries_total{{outcome="accepted",reason=""}} {sent}.0' in text
            assert f"envoyou_webhook_acknowledge_seconds_count {sent}.0" in text
            assert text.count(f'\nenvoyou_inbox_events{{name="default",status="received"}} {sent}.0') == 1
    finally:
        server.terminate()
        server.communicate(timeout=30)
