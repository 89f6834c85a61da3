"""Deliver one event to the project, as EnvoyOU would."""

from __future__ import annotations

import os
from http.client import HTTPConnection

from envoyou_core.testing import sample_event, sign_delivery

delivery = sign_delivery(
    sample_event("user.created"), secret=os.environ.get("ENVOYOU_WEBHOOK_SECRET", "whsec_only_for_development")
)
connection = HTTPConnection("127.0.0.1:8000")
connection.request("POST", "/webhooks/envoyou", delivery.body, delivery.headers)
print(connection.getresponse().read().decode())
connection.close()
