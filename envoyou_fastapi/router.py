"""The router: adds FastAPI's prefix, lifespan and OpenAPI description to the core's ASGI application."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from envoyou_core import Webhooks
from envoyou_core.adapter import mark_endpoint
from envoyou_core.asgi import WebhookEndpoint
from envoyou_fastapi.openapi import any_event, operation
from envoyou_fastapi.starlette import create_health_routes

__all__ = ["create_health_router", "create_router"]


def create_health_router(webhooks: Webhooks) -> APIRouter:
    """Create a router with the health probes `/live`, `/ready` and `/worker` below its prefix.

    They answer 200 or 503, with a small JSON object. They are not in the OpenAPI document.

    Args:
        webhooks: the webhooks whose health it is.
    """
    return APIRouter(routes=[*create_health_routes(webhooks, "")])


def create_router(webhooks: Webhooks, *, name: str = "envoyou") -> APIRouter:
    """Create a router that receives webhooks at its prefix, with and without a final slash.

    The worker starts and stops with the application's lifespan, and async handlers run on the application's event loop.
    Without a lifespan, the worker starts with the first accepted event. Middleware applies to the router; dependencies
    of the application or of `include_router` do not. See the guide, "Create Webhook Endpoint".

    Args:
        webhooks: the webhooks to receive.
        name: the route's name, for `url_for`.
    """
    endpoint = WebhookEndpoint(webhooks)

    class WebhookRoute(APIRoute):
        """A path operation for the OpenAPI document, whose requests go directly to the core, with any method.

        FastAPI would parse the body before it is verified, which also takes longer than the verification.
        """

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            await endpoint(scope, receive, send)

    mark_endpoint(WebhookRoute, lambda: webhooks)
    router = APIRouter(lifespan=webhooks.lifespan, route_class=WebhookRoute)
    router.post("", name=name, **operation(webhooks))(any_event)
    router.post("/", name=name, include_in_schema=False)(any_event)
    return router
