"""What a type checker must make of a FastAPI or Starlette application. It is checked by mypy, and never run."""

from typing import Annotated, assert_type

import msgspec
from fastapi import APIRouter, Depends, FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Route

from envoyou_core import Event, Webhooks
from envoyou_core.asgi import HealthEndpoint, health_app, webhooks_entry
from envoyou_fastapi import create_health_router, create_router, describe_webhooks, verified_event
from envoyou_fastapi.starlette import create_health_routes, create_routes, lifespan

webhooks = Webhooks(secret="whsec_1")

app = FastAPI(lifespan=webhooks.lifespan)
app.include_router(create_router(webhooks), prefix="/webhooks/envoyou")
assert_type(create_router(webhooks), APIRouter)
create_router("whsec_1")  # type: ignore[arg-type]
app.include_router(create_health_router(webhooks), prefix="/health")
assert_type(create_health_router(webhooks), APIRouter)
create_health_router("whsec_1")  # type: ignore[arg-type]
assert_type(create_health_routes(webhooks, "/health"), list[Route])
app.mount("/health", health_app(webhooks))
HealthEndpoint(webhooks, "ready")


@app.post("/only-the-check")
async def only_the_check(event: Annotated[Event, Depends(verified_event(webhooks))]) -> dict[str, str]:
    assert_type(event.id, str)
    return {"id": event.id}


class Account(BaseModel):
    id: str
    seats: int


class Login(msgspec.Struct):
    user_id: str


@app.post("/typed")
async def typed(event: Annotated[Event[Account], Depends(verified_event(webhooks, Account))]) -> int:
    assert_type(event.id, str)
    assert_type(event.data.object, Account)
    return event.data.object.seats


@app.post("/typed-with-a-struct")
async def typed_with_a_struct(event: Annotated[Event[Login], Depends(verified_event(webhooks, Login))]) -> str:
    return event.data.object.user_id


app.webhooks.include_router(describe_webhooks(webhooks))

assert_type(create_routes(webhooks, path="/webhooks/envoyou"), list[Route])
Starlette(routes=[*create_routes(webhooks)], lifespan=lifespan(webhooks))
webhooks_entry(app, webhooks, path="/webhooks/envoyou")
webhooks_entry(Starlette(), webhooks)
webhooks_entry(app, "whsec_1")  # type: ignore[arg-type]
