"""Deliver one event to the application, as EnvoyOU would, and look what became of it."""

from __future__ import annotations

import json
import os
import time
from urllib.request import Request, urlopen

from envoyou_core.testing import sample_event, sign_delivery

URL = "http://127.0.0.1:5000"

event = sample_event("user.created")
delivery = sign_delivery(event, secret=os.environ["ENVOYOU_WEBHOOK_SECRET"])
print(urlopen(Request(f"{URL}/webhooks/envoyou", delivery.body, delivery.headers)).read().decode())

for _ in range(100):
    page = json.load(urlopen(f"{URL}/events/{event.id}"))
    if page["status"] == "processed":
        break
    time.sleep(0.1)
print(page)
