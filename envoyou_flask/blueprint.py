"""The blueprint: Flask's request in, the core's answer out."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from flask import Blueprint, Flask, Response, current_app, request
from flask.blueprints import BlueprintSetupState
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from envoyou_core import WebhookRequest, WebhookResponse, Webhooks
from envoyou_core.adapter import CheckedInput, DisconnectedError, receive_wsgi, unreadable
from envoyou_core.errors import PayloadTooLargeError, UnreadableBodyError, WebhookError
from envoyou_flask.wiring import attach

__all__ = ["create_blueprint", "receiving_blueprint"]


def create_blueprint(webhooks: Webhooks, name: str = "envoyou") -> Blueprint:
    """A blueprint that receives webhooks at its URL prefix, with and without a final slash.

    Its worker starts in a thread with the first request to any URL of the app, and its handlers run in the app's
    context. See the guide, "Create Webhook Endpoint".

    Args:
        webhooks: who receives. Several apps may share it: the handlers run in the context of the one that is current,
            or else of the one that registered the blueprint last.
        name: the blueprint's name; several blueprints of one app need one each.
    """
    blueprint = receiving_blueprint(lambda: webhooks, name)
    blueprint.record(lambda state: attach(cast(Flask, state.app), webhooks, _full_name(state)))
    return blueprint


def receiving_blueprint(current_webhooks: Callable[[], Webhooks], name: str) -> Blueprint:
    """A blueprint that hands requests to the webhooks that are the current app's, and does nothing besides."""
    blueprint = Blueprint(name, __name__)

    def receive(**_values: object) -> Response:
        body = _body_read_early()
        limit = request.max_content_length
        return _answer(receive_wsgi(current_webhooks(), request.environ, body, max_body_size=limit))

    # These are raised if the body is read through Flask, by the view or by a hook that runs before it.

    def refuse(error: WebhookError) -> Response:
        return _answer(current_webhooks().refuse(error, WebhookRequest.from_wsgi(request.environ, b"")))

    def refuse_too_large(_error: RequestEntityTooLarge) -> Response:
        return refuse(PayloadTooLargeError())

    def refuse_unreadable(error: ClientDisconnected) -> Response:
        return refuse(unreadable(error))

    def check_input(_endpoint: object, _values: object) -> None:
        # Before any `before_request` function, which may read the body: the server's own exceptions would end there as
        # a 500.
        request.environ["wsgi.input"] = CheckedInput(request.environ["wsgi.input"])

    def exempt_from_csrf(_endpoint: object, _values: object) -> None:
        # Flask-WTF asks every POST for the token of a form; what proves a webhook genuine is its signature. This is
        # called before any `before_request` function, in whichever order the two were added to the app.
        exempt = getattr(current_app.extensions.get("csrf"), "exempt", None)
        if exempt is not None:
            exempt(receive)

    def register(state: BlueprintSetupState) -> None:
        endpoint = f"{_full_name(state)}.receive"
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

    blueprint.record(register)
    blueprint.register_error_handler(RequestEntityTooLarge, refuse_too_large)
    blueprint.register_error_handler(ClientDisconnected, refuse_unreadable)
    blueprint.register_error_handler(DisconnectedError, refuse)
    blueprint.register_error_handler(UnreadableBodyError, refuse)
    blueprint.url_value_preprocessor(check_input)
    blueprint.url_value_preprocessor(exempt_from_csrf)
    return blueprint


def _full_name(state: BlueprintSetupState) -> str:
    return ".".join(filter(None, [state.name_prefix, state.name]))


def _answer(response: WebhookResponse) -> Response:
    return Response(response.body, response.status, response.headers)


def _body_read_early() -> bytes | None:
    """The body, where something before the view, such as a hook that logs `request.json`, has touched the stream."""
    return request.get_data() if "stream" in request.__dict__ else None
