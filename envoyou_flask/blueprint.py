"""The blueprint: converts Flask's request for the core, and the core's response for Flask."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from flask import Blueprint, Flask, Response, current_app, request
from flask.blueprints import BlueprintSetupState
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from envoyou_core import WebhookRequest, WebhookResponse, Webhooks
from envoyou_core.adapter import CheckedInput, DisconnectedError, as_body_error, mark_endpoint, receive_wsgi
from envoyou_core.errors import PayloadTooLargeError, UnreadableBodyError, WebhookError
from envoyou_flask.wiring import attach

__all__ = ["create_blueprint", "create_health_blueprint", "health_blueprint", "receiving_blueprint"]


def create_blueprint(webhooks: Webhooks, name: str = "envoyou") -> Blueprint:
    """Create a blueprint that receives webhooks at its URL prefix, with and without a final slash.

    The worker starts in a thread with the first request to any URL of the app. Handlers run in the app's context. See
    the guide, "Create Webhook Endpoint".

    Args:
        webhooks: the webhooks to receive. Several apps may share them: handlers run in the context of the current app,
            or of the app that registered the blueprint last if there is no current one.
        name: the blueprint's name, unique within the app.
    """
    blueprint = receiving_blueprint(lambda: webhooks, name)
    blueprint.record(lambda state: attach(cast(Flask, state.app), webhooks, _full_name(state)))
    return blueprint


def create_health_blueprint(webhooks: Webhooks, name: str = "envoyou_health") -> Blueprint:
    """Create a blueprint with the health probes `/live`, `/ready` and `/worker` below its URL prefix.

    They answer 200 or 503, with a small JSON object.

    Args:
        webhooks: the webhooks whose health it is.
        name: the blueprint's name, unique within the app.
    """
    return health_blueprint(lambda: webhooks, name)


def health_blueprint(current_webhooks: Callable[[], Webhooks], name: str) -> Blueprint:
    """Create a blueprint with the health probes of the current app's webhooks."""
    blueprint = Blueprint(name, __name__)

    @blueprint.get("/<any(live, ready, worker):probe>", strict_slashes=False)
    def check(probe: str) -> Response:
        return _as_flask(current_webhooks().probes.respond(request.method, probe))

    return blueprint


def receiving_blueprint(current_webhooks: Callable[[], Webhooks], name: str) -> Blueprint:
    """Create a blueprint that passes requests to the current app's webhooks and does not start a worker."""
    blueprint = Blueprint(name, __name__)

    def receive(**_values: object) -> Response:
        body = _cached_body()
        limit = request.max_content_length
        return _as_flask(receive_wsgi(current_webhooks(), request.environ, body, max_body_size=limit))

    mark_endpoint(receive, current_webhooks)

    # These errors occur if the view or a hook before it reads the body through Flask.

    def refuse(error: WebhookError) -> Response:
        return _as_flask(current_webhooks().refuse(error, WebhookRequest.from_wsgi(request.environ, b"")))

    def refuse_too_large(_error: RequestEntityTooLarge) -> Response:
        return refuse(PayloadTooLargeError())

    def refuse_unreadable(error: ClientDisconnected) -> Response:
        return refuse(as_body_error(error))

    def check_input(_endpoint: object, _values: object) -> None:
        # Before any `before_request` function, which may read the body: an exception of the server's would be answered
        # 500 there.
        request.environ["wsgi.input"] = CheckedInput(request.environ["wsgi.input"])

    def exempt_from_csrf(_endpoint: object, _values: object) -> None:
        # Flask-WTF requires a form's token in every POST, but a webhook is authenticated by its signature. This runs
        # before any `before_request` function, in whichever order the two were added to the app.
        exempt = getattr(current_app.extensions.get("csrf"), "exempt", None)
        if exempt is not None:
            exempt(receive)

    def register(state: BlueprintSetupState) -> None:
        endpoint = f"{_full_name(state)}.receive"
        # `add_url_rule` would restrict the methods, but the core answers all of them, 405 included. Without strict
        # slashes, the rule also matches the path without its final slash, and without a redirect, which webhook senders
        # count as a failure.
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


def _as_flask(response: WebhookResponse) -> Response:
    return Response(response.body, response.status, response.headers)


def _cached_body() -> bytes | None:
    """Return the body if code before the view, such as a hook that logs `request.json`, has read it through Flask."""
    return request.get_data() if "stream" in request.__dict__ else None
