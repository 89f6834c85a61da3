"""The view: turns Django's request into the core's, and the core's answer into Django's."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib.auth.decorators import login_not_required
from django.core.handlers.wsgi import WSGIRequest
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from envoyou_core import WebhookRequest, WebhookResponse
from envoyou_core.wsgi import receive_wsgi
from envoyou_django import webhooks

__all__ = ["receive"]

View = Callable[[HttpRequest], HttpResponse]


def never_atomic(view: View) -> View:
    """Keep `view` out of `ATOMIC_REQUESTS` on every database: what it stores must be committed before it answers."""
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


@csrf_exempt
@login_not_required
@never_atomic
def receive(request: HttpRequest) -> HttpResponse:
    """Answer one delivery, under WSGI or ASGI. See the guide, "Create Webhook Endpoint"."""
    answer = _receive_wsgi(request) if isinstance(request, WSGIRequest) else _receive_other(request)
    return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))


def _receive_wsgi(request: WSGIRequest) -> WebhookResponse:
    environ = request.environ
    if environ.get("CONTENT_LENGTH"):
        # Read through the request, the body is there once more where a middleware has read it already, and
        # DATA_UPLOAD_MAX_MEMORY_SIZE is not asked. Without a length Django takes a body for empty: such a one, sent in
        # chunks, is read from the server.
        environ = {**environ, "wsgi.input": request}
    return receive_wsgi(webhooks, environ)


def _receive_other(request: HttpRequest) -> WebhookResponse:
    # Under ASGI Django has received the body by now, and keeps a large one on disk. One byte more than is allowed is
    # enough to see that it is too large.
    body = request.read(webhooks.max_body_size + 1)
    return webhooks.receive(WebhookRequest.from_http(request.method or "", request.headers, body))
