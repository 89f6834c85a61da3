"""Deliver one event to the application, as EnvoyOU would, and look what became of it."""

from __future__ import annotations

import json
import os
import time
from http.client import HTTPConnection

from envoyou_core.testing import sample_event, sign_delivery


def ask(method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> str:
    connection = HTTPConnection("127.0.0.1:5000")
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse().read().decode()
    connection.close()
    return answer


event = sample_event("user.created")
delivery = sign_delivery(event, secret=os.environ["ENVOYOU_WEBHOOK_SECRET"])
print(ask("POST", "/webhooks/envoyou", delivery.body, delivery.headers))

for _ in range(100):
    page = json.loads(ask("GET", f"/events/{event.id}"))
    if page["status"] == "processed":
        break
    time.sleep(0.1)
print(page)
