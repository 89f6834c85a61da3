"""The application: it receives webhooks, and shows what became of them.

flask run
"""

from __future__ import annotations

import logging
from typing import Any

from flask import Flask, abort
from hooks import webhooks

from envoyou_flask import create_blueprint

logging.basicConfig(level=logging.INFO)

app = Flask(__name__)
app.register_blueprint(create_blueprint(webhooks), url_prefix="/webhooks/envoyou")


@app.get("/events/<event_id>")
def event(event_id: str) -> dict[str, Any]:
    """What the inbox knows of an event."""
    record = webhooks.inbox.get(event_id)
    if record is None:
        abort(404)
    return {
        "type": record.event.type,
        "status": record.status.value,
        "attempts": record.attempts,
        "last_error": record.last_error,
    }
