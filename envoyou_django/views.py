"""The views: convert Django's request for the core, and the core's response for Django."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django.contrib.auth.decorators import login_not_required
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from envoyou_core import WebhookRequest, WebhookResponse
from envoyou_core.adapter import as_body_error, read_wsgi
from envoyou_core.errors import WebhookError
from envoyou_django import webhooks
from envoyou_django.connections import outside_transactions

__all__ = ["areceive", "health", "receive"]

View = TypeVar("View", bound=Callable[..., Any])


def webhook_view(view: View) -> View:
    """Exempt `view` from CSRF checks, from `LoginRequiredMiddleware` and, on every database, from `ATOMIC_REQUESTS`.

    Without the last, the event would be committed only after the view has returned its response.
    """
    exempt: View = csrf_exempt(login_not_required(outside_transactions(view)))
    return exempt


@webhook_view
def receive(request: HttpRequest) -> HttpResponse:
    """Answer one delivery in the calling thread. See the guide, "Create Webhook Endpoint"."""
    received = _read(request)
    return _as_django(received if isinstance(received, WebhookResponse) else webhooks.receive(received))


@webhook_view
async def areceive(request: HttpRequest) -> HttpResponse:
    """Answer one delivery without blocking a thread while it is stored. See the guide, "Create Webhook Endpoint"."""
    received = _read(request)
    return _as_django(received if isinstance(received, WebhookResponse) else await webhooks.areceive(received))


@login_not_required
@outside_transactions
def health(request: HttpRequest, probe: str) -> HttpResponse:
    """Answer a health probe: `live`, `ready` or `worker`. Under ASGI it runs in a thread, as any sync view."""
    return _as_django(webhooks.probes.respond(request.method or "", probe))


def _read(request: HttpRequest) -> WebhookRequest | WebhookResponse:
    """Read the request, or refuse it."""
    try:
        return _read_wsgi(request) if isinstance(request, WSGIRequest) else _read_other(request)
    except WebhookError as error:
        return webhooks.refuse(error, _as_core_request(request))


def _read_wsgi(request: WSGIRequest) -> WebhookRequest:
    environ = request.environ
    if environ.get("CONTENT_LENGTH"):
        # A body that middleware has read already can be read again from the request, and its `read` does not apply
        # DATA_UPLOAD_MAX_MEMORY_SIZE. But Django considers a body without a length empty, so a chunked one is read from
        # the server.
        environ = {**environ, "wsgi.input": request}
    return read_wsgi(webhooks.request_limits, environ)


def _read_other(request: HttpRequest) -> WebhookRequest:
    # Under ASGI, Django has received the whole body by now, and keeps a large one on disk. One byte more than the limit
    # is enough to see that the body is too large.
    try:
        body = request.read(webhooks.request_limits.max_body_size + 1)
    except Exception as error:
        raise as_body_error(error) from None
    return _as_core_request(request, body)


def _as_core_request(request: HttpRequest, body: bytes = b"") -> WebhookRequest:
    return WebhookRequest.from_http(
        request.method or "", request.headers, body, path=request.path, peer=request.META.get("REMOTE_ADDR")
    )


def _as_django(response: WebhookResponse) -> HttpResponse:
    return HttpResponse(response.body, status=response.status, headers=dict(response.headers))
