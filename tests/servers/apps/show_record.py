"""Print what the inbox holds of one event: `show_record.py <module with webhooks> <event id>`."""

from __future__ import annotations

import hashlib
import json
import sys
from importlib import import_module

_, module, event_id = sys.argv
record = import_module(module).webhooks.inbox.get(event_id)
if record is None:
    found = None
else:
    body = hashlib.sha256(record.event.body).hexdigest()
    found = {"status": record.status, "attempts": record.attempts, "crashes": record.crashes, "body": body}
json.dump(found, sys.stdout)
