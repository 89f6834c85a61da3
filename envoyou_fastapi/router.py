"""The router: FastAPI's prefix, lifespan and description around the core's own ASGI application."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from envoyou_core import Webhooks
from envoyou_core.asgi import WebhookEndpoint
from envoyou_fastapi.openapi import any_event, operation

__all__ = ["create_router"]


def create_router(webhooks: Webhooks) -> APIRouter:
    """A router that receives webhooks at the prefix it is included with, with and without a final slash.

    With the application's lifespan it starts a worker on the application's event loop, where async handlers run, and
    stops it again; without one, the worker starts with the first event that is accepted. Dependencies of the
    application or of the inclusion do not run for it, middleware does. See the guide, "Create Webhook Endpoint".

    Args:
        webhooks: who receives.
    """
    endpoint = WebhookEndpoint(webhooks)

    class WebhookRoute(APIRoute):
        """A path operation to whoever looks at it, such as the OpenAPI document.

        What is sent to it, by whatever method, goes straight to the core: FastAPI would parse the body before anyone
        can verify it, and take longer than the verification.
        """

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            await endpoint(scope, receive, send)

    router = APIRouter(lifespan=webhooks.lifespan, route_class=WebhookRoute)
    router.post("", name="envoyou", **operation(webhooks))(any_event)
    router.post("/", name="envoyou", include_in_schema=False)(any_event)
    return router
