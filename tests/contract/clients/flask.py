"""A Flask application under werkzeug's threaded server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask

from envoyou_core import Handlers, Webhooks
from envoyou_flask import create_blueprint
from tests.contract.clients import PATH, Served
from tests.contract.clients.servers import HOST, werkzeug_server


class FlaskClient:
    name = "flask"

    @contextmanager
    def serve(self, handlers: Handlers, **settings: Any) -> Iterator[Served]:
        webhooks = Webhooks(**settings)
        webhooks.include(handlers)
        app = Flask("served")
        app.register_blueprint(create_blueprint(webhooks), url_prefix=PATH)
        with werkzeug_server(app) as port:
            yield Served(HOST, port, webhooks)
        webhooks.stop()
        webhooks.inbox.close()


client = FlaskClient()
