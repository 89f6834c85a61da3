from fastapi import FastAPI, Header, HTTPException, Request
from starlette.concurrency import run_in_threadpool

from benchmarks.sites.variants import BARE, LEAN, PATH, RECEIVED, ROUTE, VARIANT, blocks, make_webhooks, verified, work
from envoyou_core.asgi import webhooks_entry
from envoyou_fastapi import create_router

app = FastAPI()

if VARIANT == ROUTE:
    app.include_router(create_router(make_webhooks()), prefix=PATH)
elif VARIANT in {BARE, LEAN}:

    @app.post(PATH)
    async def bare(request: Request):
        await request.body()
        return RECEIVED

else:

    @app.post(PATH)
    async def sample(
        request: Request, x_envoyou_signature: str = Header(None), x_envoyou_timestamp: str = Header(None)
    ):
        body = await request.body()
        payload = await request.json()
        if not verified(payload, x_envoyou_signature, x_envoyou_timestamp):
            raise HTTPException(status_code=401, detail="Invalid signature")
        if blocks:
            await run_in_threadpool(work, payload, body)
        return RECEIVED


if VARIANT == LEAN:
    app = webhooks_entry(app, make_webhooks(), path=PATH)
