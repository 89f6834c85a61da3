"""The application: it receives webhooks, and shows what it knows.

uvicorn app:app
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from database import Account, AuditEntry, Notice, create_tables, engine, session
from fastapi import Depends, FastAPI, HTTPException
from hooks import webhooks
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from envoyou_fastapi import create_router, describe_webhooks


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    await create_tables()
    yield  # the worker starts after this line and has stopped before the next one
    await engine.dispose()


app = FastAPI(title="An application that is told by EnvoyOU", lifespan=lifespan)
app.include_router(create_router(webhooks), prefix="/webhooks/envoyou")
app.webhooks.include_router(describe_webhooks(webhooks))

Session = Annotated[AsyncSession, Depends(session)]


@app.get("/users/{user_id}")
async def user(user_id: str, session: Session) -> dict[str, Any]:
    """Return a user, as last described by EnvoyOU."""
    found = await session.get(Account, user_id)
    if found is None:
        raise HTTPException(404)
    return {"email": found.email, "name": found.name, "verified": found.verified, "deleted": found.deleted}


@app.get("/users/{user_id}/audit")
async def audit_trail(user_id: str, session: Session) -> list[dict[str, Any]]:
    """Return the logins and logouts of a user, oldest first."""
    entries = await session.scalars(select(AuditEntry).where(AuditEntry.user_id == user_id).order_by(AuditEntry.at))
    return [{"what": entry.what, "address": entry.address, "at": entry.at} for entry in entries]


@app.get("/notices/{notice_id}")
async def notice(notice_id: str, session: Session) -> dict[str, Any]:
    """Return an incident or a maintenance window."""
    found = await session.get(Notice, notice_id)
    if found is None:
        raise HTTPException(404)
    return {"what": found.what, "title": found.title}
