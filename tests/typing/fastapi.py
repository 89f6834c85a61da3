"""What a type checker must make of a FastAPI or Starlette application. It is checked by mypy, and never run."""

from typing import Annotated, assert_type

from fastapi import APIRouter, Depends, FastAPI
from starlette.applications import Starlette
from starlette.routing import Route

from envoyou_core import Event, Webhooks
from envoyou_core.asgi import webhooks_entry
from envoyou_fastapi import create_router, verified_event
from envoyou_fastapi.starlette import create_routes, lifespan

webhooks = Webhooks(secret="whsec_1")

app = FastAPI(lifespan=webhooks.lifespan)
app.include_router(create_router(webhooks), prefix="/webhooks/envoyou")
assert_type(create_router(webhooks), APIRouter)
create_router("whsec_1")  # type: ignore[arg-type]


@app.post("/only-the-check")
async def only_the_check(event: Annotated[Event, Depends(verified_event(webhooks))]) -> dict[str, str]:
    assert_type(event.id, str)
    return {"id": event.id}


assert_type(create_routes(webhooks, path="/webhooks/envoyou"), list[Route])
Starlette(routes=[*create_routes(webhooks)], lifespan=lifespan(webhooks))
webhooks_entry(app, webhooks, path="/webhooks/envoyou")
webhooks_entry(Starlette(), webhooks)
webhooks_entry(app, "whsec_1")  # type: ignore[arg-type]
