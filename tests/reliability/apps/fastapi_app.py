from __future__ import annotations

from crash_points import AfterTheAnswerASGI
from fastapi import FastAPI
from hooks import webhooks

from envoyou_fastapi import create_router

inner = FastAPI()
inner.include_router(create_router(webhooks), prefix="/webhooks/envoyou")


@inner.get("/health")
async def health() -> str:
    return "well"


app = AfterTheAnswerASGI(inner)
