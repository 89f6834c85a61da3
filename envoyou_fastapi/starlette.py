"""Routes and a lifespan for Starlette. FastAPI need not be installed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from starlette.routing import Route

from envoyou_core import Webhooks
from envoyou_core.asgi import WebhookEndpoint

__all__ = ["create_routes", "lifespan"]


def create_routes(webhooks: Webhooks, path: str = "/webhooks/envoyou", *, name: str = "envoyou") -> list[Route]:
    """Routes that receive webhooks at `path`, with and without a final slash. See the guide, "Create Webhook Endpoint".

    They lead straight to the core, for every method; Starlette answers nothing itself.

    Args:
        webhooks: who receives.
        path: from the root of the application or mount, starting with a slash. Under a mount it must be more than the
            slash: the mount's own path, Starlette redirects to its form with a slash, and a sender counts a redirect as
            a failure. So mount one level higher: `Mount("/webhooks", routes=create_routes(webhooks, "/envoyou"))`.
        name: for `url_for`.
    """
    endpoint = WebhookEndpoint(webhooks)
    stem = path.rstrip("/")
    return [Route(form, endpoint, name=name) for form in (stem, f"{stem}/") if form]


def lifespan(webhooks: Webhooks) -> Callable[[object], AbstractAsyncContextManager[None]]:
    """The `lifespan` of a Starlette application: handlers run on its event loop, from its start to its end.

    In a lifespan of your own, write `async with webhooks.lifespan():` instead. Without any, the worker starts with
    the first event that is accepted.
    """
    return webhooks.lifespan
