"""The entry, wrapping a Flask application without our blueprint, under Werkzeug's threaded server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask

from envoyou_core import Handlers, Webhooks
from envoyou_core.wsgi import webhooks_entry
from tests.contract.clients import PATH, Served
from tests.contract.clients.servers import HOST, werkzeug_server


class FlaskEntryClient:
    name = "flask_entry"

    @contextmanager
    def serve(self, handlers: Handlers, **settings: Any) -> Iterator[Served]:
        webhooks = Webhooks(**settings)
        webhooks.include(handlers)
        app = Flask("served")
        app.wsgi_app = webhooks_entry(app.wsgi_app, webhooks, path=PATH)  # type: ignore[method-assign]
        with werkzeug_server(app) as port:
            yield Served(HOST, port, webhooks)
        webhooks.stop()
        webhooks.inbox.close()


client = FlaskEntryClient()
