from __future__ import annotations

from hooks import webhooks
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from envoyou_fastapi.starlette import create_routes, lifespan


async def health(request: Request) -> PlainTextResponse:
    return PlainTextResponse("well")


app = Starlette(
    routes=[Route("/health", health), *create_routes(webhooks, path="/webhooks/envoyou")],
    lifespan=lifespan(webhooks),
)
