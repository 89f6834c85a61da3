"""Routes and a lifespan for Starlette. FastAPI is not required."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from starlette.routing import Route

from envoyou_core import Webhooks
from envoyou_core.asgi import HealthEndpoint, WebhookEndpoint

__all__ = ["create_health_routes", "create_routes", "lifespan"]


def create_routes(webhooks: Webhooks, path: str = "/webhooks/envoyou", *, name: str = "envoyou") -> list[Route]:
    """Create routes that receive webhooks at `path`, with and without a final slash, and with any method.

    See the guide, "Create Webhook Endpoint".

    Args:
        webhooks: the webhooks to receive.
        path: relative to the application or mount, starting with a slash. Under a mount, it must be longer than the
            slash: Starlette redirects the mount's own path to its form with a slash, and senders count a redirect as a
            failure. So mount one level higher: `Mount("/webhooks", routes=create_routes(webhooks, "/envoyou"))`.
        name: the route's name, for `url_for`.
    """
    endpoint = WebhookEndpoint(webhooks)
    stem = path.rstrip("/")
    return [Route(form, endpoint, name=name) for form in (stem, f"{stem}/") if form]


def create_health_routes(webhooks: Webhooks, path: str = "/health") -> list[Route]:
    """Create routes with the health probes `live`, `ready` and `worker` below `path`.

    They answer 200 or 503, with a small JSON object.

    Args:
        webhooks: the webhooks whose health it is.
        path: relative to the application or mount, starting with a slash.
    """
    stem = path.rstrip("/")
    return [
        Route(f"{stem}/{probe}", HealthEndpoint(webhooks, probe), name=f"envoyou_{probe}")
        for probe in ("live", "ready", "worker")
    ]


def lifespan(webhooks: Webhooks) -> Callable[[object], AbstractAsyncContextManager[None]]:
    """Return the `lifespan` argument for a Starlette application: the worker runs on the application's event loop.

    If the application has a lifespan of its own, use `async with webhooks.lifespan():` in it instead. Without a
    lifespan, the worker starts with the first accepted event.
    """
    return webhooks.lifespan
