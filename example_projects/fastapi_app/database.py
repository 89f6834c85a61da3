"""The database of the application and of the inbox: SQLite by default, or PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

engine = create_async_engine(
    os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///app.db"),
    hide_parameters=True,  # errors must not contain payloads
)


class Base(DeclarativeBase):
    pass


class Account(Base):
    """A user, as last described by EnvoyOU."""

    __tablename__ = "accounts"

    id: Mapped[str] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(default="")
    name: Mapped[str] = mapped_column(default="")
    verified: Mapped[bool] = mapped_column(default=False)
    deleted: Mapped[bool] = mapped_column(default=False)


class AuditEntry(Base):
    """A login or logout of a user."""

    __tablename__ = "audit_entries"

    number: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(index=True)
    what: Mapped[str]
    address: Mapped[str]
    at: Mapped[int]


class Notice(Base):
    """An incident, or a maintenance window."""

    __tablename__ = "notices"

    id: Mapped[str] = mapped_column(primary_key=True)
    what: Mapped[str]
    title: Mapped[str]


async def create_tables() -> None:
    """Create the tables; a real application would use migrations."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


async def session() -> AsyncIterator[AsyncSession]:
    """Yield a session for a path operation; handlers get theirs from the inbox."""
    async with AsyncSession(engine) as session:
        yield session
