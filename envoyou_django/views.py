"""The views: turn Django's request into the core's, and the core's answer into Django's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django.contrib.auth.decorators import login_not_required
from django.core.handlers.wsgi import WSGIRequest
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from envoyou_core import WebhookRequest, WebhookResponse
from envoyou_core.adapter import read_wsgi, unreadable
from envoyou_core.errors import WebhookError
from envoyou_django import webhooks

__all__ = ["areceive", "receive"]

View = TypeVar("View", bound=Callable[..., Any])


def webhook_view(view: View) -> View:
    """Let `view` be asked by who has no session, no login and no token, and keep it out of `ATOMIC_REQUESTS`.

    On every database: what it stores must be committed before it answers.
    """
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    exempt: View = csrf_exempt(login_not_required(view))
    return exempt


@webhook_view
def receive(request: HttpRequest) -> HttpResponse:
    """Answer one delivery in the calling thread. See the guide, "Create Webhook Endpoint"."""
    found = _read(request)
    return _answer(found if isinstance(found, WebhookResponse) else webhooks.receive(found))


@webhook_view
async def areceive(request: HttpRequest) -> HttpResponse:
    """Answer one delivery; while it is stored, no thread waits. See the guide, "Create Webhook Endpoint"."""
    found = _read(request)
    return _answer(found if isinstance(found, WebhookResponse) else await webhooks.areceive(found))


def _read(request: HttpRequest) -> WebhookRequest | WebhookResponse:
    """What is to be received, or where that can be said without, the refusal."""
    try:
        return _read_wsgi(request) if isinstance(request, WSGIRequest) else _read_other(request)
    except WebhookError as error:
        return webhooks.refuse(error, _as_core_request(request))


def _read_wsgi(request: WSGIRequest) -> WebhookRequest:
    environ = request.environ
    if environ.get("CONTENT_LENGTH"):
        # Read through the request, the body is there once more where a middleware has read it already, and
        # DATA_UPLOAD_MAX_MEMORY_SIZE is not asked. Without a length Django takes a body for empty: such a one, sent in
        # chunks, is read from the server.
        environ = {**environ, "wsgi.input": request}
    return read_wsgi(webhooks, environ)


def _read_other(request: HttpRequest) -> WebhookRequest:
    # Under ASGI Django has received the body by now, and keeps a large one on disk. One byte more than is allowed is
    # enough to see that it is too large.
    try:
        body = request.read(webhooks.max_body_size + 1)
    except Exception as error:
        raise unreadable(error) from None
    return _as_core_request(request, body)


def _as_core_request(request: HttpRequest, body: bytes = b"") -> WebhookRequest:
    return WebhookRequest.from_http(
        request.method or "", request.headers, body, path=request.path, peer=request.META.get("REMOTE_ADDR")
    )


def _answer(response: WebhookResponse) -> HttpResponse:
    return HttpResponse(response.body, status=response.status, headers=dict(response.headers))
