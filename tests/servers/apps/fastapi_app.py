from __future__ import annotations

from fastapi import FastAPI
from hooks import webhooks

from envoyou_fastapi import create_router

app = FastAPI()
app.include_router(create_router(webhooks), prefix="/webhooks/envoyou")


@app.get("/health")
async def health() -> str:
    return "well"
