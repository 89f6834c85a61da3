"""A Flask application under werkzeug's threaded server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask

from envoyou_core import Handlers, Webhooks
from envoyou_flask import create_blueprint
from tests.contract.clients import PATH, Built, Served
from tests.contract.clients.servers import HOST, werkzeug_server


class FlaskClient:
    name = "flask"

    @contextmanager
    def build(self, handlers: Handlers, **settings: Any) -> Iterator[Built]:
        webhooks = Webhooks(**settings)
        webhooks.include(handlers)
        app = Flask("served")
        app.register_blueprint(create_blueprint(webhooks), url_prefix=PATH)
        yield Built(app, webhooks)
        webhooks.stop()
        webhooks.inbox.close()

    @contextmanager
    def serve(self, handlers: Handlers, **settings: Any) -> Iterator[Served]:
        with self.build(handlers, **settings) as built, werkzeug_server(built.app) as port:
            yield Served(HOST, port, built.webhooks)


client = FlaskClient()
