from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks.sites.variants import BARE, LEAN, PATH, RECEIVED, ROUTE, VARIANT, blocks, make_webhooks, verified, work
from envoyou_core.asgi import webhooks_entry
from envoyou_fastapi.starlette import create_routes, lifespan


async def bare(request: Request) -> Response:
    await request.body()
    return JSONResponse(RECEIVED)


async def sample(request: Request) -> Response:
    body = await request.body()
    payload = await request.json()
    if not verified(payload, *map(request.headers.get, ("x-envoyou-signature", "x-envoyou-timestamp"))):
        return JSONResponse({"detail": "Invalid signature"}, status_code=401)
    if blocks:
        await run_in_threadpool(work, payload, body)
    return JSONResponse(RECEIVED)


if VARIANT == ROUTE:
    webhooks = make_webhooks()
    app = Starlette(routes=create_routes(webhooks, path=PATH), lifespan=lifespan(webhooks))
else:
    endpoint = bare if VARIANT in {BARE, LEAN} else sample
    app = Starlette(routes=[Route(PATH, endpoint, methods=["POST"])])
    if VARIANT == LEAN:
        app = webhooks_entry(app, make_webhooks(), path=PATH)
