"""Connects an app and its `Webhooks` object apart from requests: application context, worker and commands."""

from __future__ import annotations

from flask import Flask

from envoyou_core import Webhooks
from envoyou_flask.cli import add_commands
from envoyou_flask.context import handle_within

__all__ = ["attach"]


def attach(app: Flask, webhooks: Webhooks, name: str) -> None:
    """Store `webhooks` as `app.extensions["envoyou"][name]`.

    Its handlers run in the app's context, the first request to any URL starts its worker, and `flask envoyou` has
    commands for it.
    """
    attached: dict[str, Webhooks] = app.extensions.setdefault("envoyou", {})
    if webhooks not in attached.values():
        handle_within(app, webhooks)
        # This never raises: a worker that cannot start is an error in the log, not a 500 on every page of the app.
        app.before_request(webhooks.ensure_worker)
    attached[name] = webhooks
    add_commands(app)
