"""What an app and its webhooks have of each other, beside the requests: context, worker and commands."""

from __future__ import annotations

from flask import Flask

from envoyou_core import Webhooks
from envoyou_flask.cli import add_commands
from envoyou_flask.context import handle_within

__all__ = ["attach"]


def attach(app: Flask, webhooks: Webhooks, name: str) -> None:
    """Let `webhooks` belong to `app`, as `app.extensions["envoyou"][name]`.

    Handlers run in the app's context, the first request to any URL starts the worker, and `flask envoyou` knows of it.
    """
    attached: dict[str, Webhooks] = app.extensions.setdefault("envoyou", {})
    if webhooks not in attached.values():
        handle_within(app, webhooks)
        # It never raises: a worker that cannot start is an error in the log, not a 500 on every page of the app.
        app.before_request(webhooks.ensure_worker)
    attached[name] = webhooks
    add_commands(app)
