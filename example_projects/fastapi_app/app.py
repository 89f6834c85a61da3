"""The application: it receives webhooks, and shows what it knows.

uvicorn app:app
"""

from __future__ import annotations

from typing import Any

import store
from fastapi import FastAPI, HTTPException
from hooks import webhooks

from envoyou_fastapi import create_router

app = FastAPI(title="An application that is told by EnvoyOU")
app.include_router(create_router(webhooks), prefix="/webhooks/envoyou")


@app.get("/users/{user_id}")
def user(user_id: str) -> dict[str, Any]:
    """A user as EnvoyOU last described it."""
    return _found(store.user(user_id))


@app.get("/users/{user_id}/audit")
def audit_trail(user_id: str) -> list[dict[str, Any]]:
    """What a user did to get in, oldest first."""
    return store.audit_trail(user_id)


@app.get("/notices/{notice_id}")
def notice(notice_id: str) -> dict[str, Any]:
    """An incident, or a maintenance window."""
    return _found(store.notice(notice_id))


def _found(row: dict[str, Any] | None) -> dict[str, Any]:
    if row is None:
        raise HTTPException(404)
    return row
