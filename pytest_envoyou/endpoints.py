"""Finds the endpoints for webhooks in an application, whichever framework it uses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from envoyou_core.endpoints import mark_of
from envoyou_core.errors import ConfigurationError
from envoyou_core.webhooks import Webhooks

__all__ = ["Endpoint", "choose_endpoint", "endpoints_of"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A path of an application at which webhooks are received.

    Attributes:
        webhooks: the `Webhooks` object that receives.
        path: the path; it may have parameters.
    """

    webhooks: Webhooks
    path: str


def endpoints_of(application: Any) -> list[Endpoint]:
    """Find the endpoints of a Flask app, an ASGI application with routes, or a wrapper of this library."""
    found: dict[tuple[int, str], Endpoint] = {}
    search = _in_url_map if hasattr(application, "url_map") else _in_routes
    for endpoint in search(application):
        path = endpoint.path.rstrip("/") or "/"
        found.setdefault((id(endpoint.webhooks), path), Endpoint(endpoint.webhooks, path))
    return list(found.values())


def choose_endpoint(endpoints: list[Endpoint], path: str | None) -> Endpoint:
    """Return the endpoint at `path`; without one, the only `Webhooks` object's first endpoint without parameters.

    Args:
        endpoints: the application's endpoints, at least one.
        path: the path that the test names.

    Raises:
        ConfigurationError: it is not clear which one is meant.
    """
    candidates = endpoints
    if path is not None:
        candidates = [endpoint for endpoint in endpoints if _matches(endpoint.path, path)] or endpoints
    if len({id(endpoint.webhooks) for endpoint in candidates}) > 1:
        paths = ", ".join(sorted(endpoint.path for endpoint in candidates))
        raise ConfigurationError(
            f"the application has several Webhooks, at {paths}: name the path by a fixture envoyou_path"
        )
    if path is not None:
        return Endpoint(candidates[0].webhooks, path)
    plain = [endpoint for endpoint in candidates if not set("<{") & set(endpoint.path)]
    if not plain:
        raise ConfigurationError(
            f"the path {candidates[0].path} has parameters: return one with values from a fixture envoyou_path"
        )
    return plain[0]


def _matches(route: str, path: str) -> bool:
    """Whether a path may lead to a route, which may have parameters such as `<name>` or `{name}`."""
    literals = re.split(r"<[^>]*>|\{[^}]*\}", route.rstrip("/"))
    return re.fullmatch(".+".join(map(re.escape, literals)) + "/?", path) is not None


def _in_url_map(application: Any) -> Iterator[Endpoint]:
    """Search the rules of a Flask app."""
    for rule in application.url_map.iter_rules():
        if mark := mark_of(application.view_functions.get(rule.endpoint)):
            yield Endpoint(_current(mark.current_webhooks, application), rule.rule)


def _in_routes(application: Any, prefix: str = "") -> Iterator[Endpoint]:
    """Search the routes of an ASGI application, what it mounts and what it wraps."""
    if mark := mark_of(application):
        yield Endpoint(mark.current_webhooks(), f"{prefix}{mark.path or ''}")
        return
    for route in _members(application, "routes"):
        path = f"{prefix}{getattr(route, 'path', None) or ''}"
        mark = mark_of(route) or mark_of(getattr(route, "endpoint", None))
        if mark is not None:
            yield Endpoint(mark.current_webhooks(), path)
        elif (included := getattr(route, "original_router", None)) is not None:
            # FastAPI keeps the routers that it includes.
            yield from _in_routes(included, f"{path}{getattr(route.include_context, 'prefix', '')}")
        else:
            yield from _in_routes(route, path)
    inner = getattr(application, "app", None)
    if not _members(application, "routes") and inner is not None:
        # Middleware that wraps the application, or a mounted one.
        yield from _in_routes(inner, prefix)


def _members(value: Any, name: str) -> list[Any]:
    members = getattr(value, name, None)
    return list(members) if isinstance(members, list | tuple) else []


def _current(current_webhooks: Callable[[], Webhooks], application: Any) -> Webhooks:
    context = application.app_context() if hasattr(application, "app_context") else nullcontext()
    with context:
        return current_webhooks()
