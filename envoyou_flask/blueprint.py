"""The blueprint: Flask's request in, the core's answer out."""

from __future__ import annotations

import os
from typing import cast

from flask import Blueprint, Flask, Response, request
from flask.blueprints import BlueprintSetupState
from werkzeug.exceptions import RequestEntityTooLarge

from envoyou_core import WebhookResponse, Webhooks
from envoyou_core.errors import PayloadTooLargeError
from envoyou_core.wsgi import receive_wsgi
from envoyou_flask.context import handle_within

__all__ = ["create_blueprint"]


def create_blueprint(webhooks: Webhooks, name: str = "envoyou") -> Blueprint:
    """A blueprint that receives webhooks at its URL prefix, with and without a final slash.

    Its worker starts in a thread with the first request to any URL of the app, and its handlers run in the app's
    context. See the guide, "Create Webhook Endpoint".

    Args:
        webhooks: who receives. Several apps may share it: the handlers run in the context of the one that registered
            the blueprint last.
        name: the blueprint's name; several blueprints of one app need one each.
    """
    blueprint = Blueprint(name, __name__)
    started_in: int | None = None

    def receive(**_values: object) -> Response:
        body = _body_read_early()
        return _answer(receive_wsgi(webhooks, request.environ, body, max_body_size=request.max_content_length))

    def refuse_too_large(_error: RequestEntityTooLarge) -> Response:
        # Raised where the body is read through Flask, by us or by a hook before us.
        return _answer(webhooks.refuse(PayloadTooLargeError()))

    def start_worker() -> None:
        nonlocal started_in
        if started_in != os.getpid():
            started_in = os.getpid()
            # It never raises: a worker that cannot start is an error in the log, not a 500 on every page of the app.
            webhooks.wake()

    def register(state: BlueprintSetupState) -> None:
        endpoint = ".".join(filter(None, [state.name_prefix, state.name, "receive"]))
        # `add_url_rule` asks for the methods; here every method comes to the core, which answers 405 as it answers
        # everything else. Without strict slashes, the rule matches the path without its slash, too, and not by a
        # redirect, which a sender counts as a failure.
        rule = state.app.url_rule_class(
            f"{(state.url_prefix or '').rstrip('/')}/",
            endpoint=endpoint,
            strict_slashes=False,
            subdomain=state.subdomain,
        )
        state.app.url_map.add(rule)
        state.app.view_functions[endpoint] = receive
        handle_within(cast(Flask, state.app), webhooks)

    blueprint.record(register)
    blueprint.register_error_handler(RequestEntityTooLarge, refuse_too_large)
    blueprint.before_app_request(start_worker)
    return blueprint


def _answer(response: WebhookResponse) -> Response:
    return Response(response.body, response.status, response.headers)


def _body_read_early() -> bytes | None:
    """The body, where something before the view, such as a hook that logs `request.json`, has touched the stream."""
    return request.get_data() if "stream" in request.__dict__ else None
