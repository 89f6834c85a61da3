"""EnvoyOU webhooks in FastAPI: a router, or a dependency that only verifies. See `.starlette` for Starlette."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from envoyou_fastapi.dependencies import verified_event
    from envoyou_fastapi.openapi import describe_webhooks
    from envoyou_fastapi.router import create_health_router, create_router

__all__ = ["create_health_router", "create_router", "describe_webhooks", "verified_event"]

_MODULE_OF = {
    "create_health_router": "router",
    "create_router": "router",
    "describe_webhooks": "openapi",
    "verified_event": "dependencies",
}


def __getattr__(name: str) -> object:
    # Imported lazily, because `envoyou_fastapi.starlette` must work without FastAPI.
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
