"""Finds the URLs at which the project receives webhooks, in included URLconfs as well."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver, reverse

__all__ = ["Endpoint", "endpoints"]

VIEWS = "envoyou_django.views"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A URL pattern that leads to a view of this app.

    Attributes:
        prefix: the route under which the project includes it.
        view: the callback of the pattern: a view of this app, possibly decorated.
        name: the name to reverse it by, with its namespaces.
    """

    prefix: str
    view: Callable[..., Any]
    name: str

    @property
    def path(self) -> str:
        """The URL path.

        Raises:
            NoReverseMatch: the route has parameters.
        """
        path: str = reverse(self.name)
        return path


def endpoints() -> list[Endpoint]:
    """List all endpoints, in the order in which Django resolves URLs."""
    return list(_endpoints(get_resolver().url_patterns, "", ()))


def _endpoints(
    patterns: Sequence[URLPattern | URLResolver], prefix: str, namespaces: tuple[str, ...]
) -> Iterator[Endpoint]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            inner = namespaces if pattern.namespace is None else (*namespaces, pattern.namespace)
            yield from _endpoints(pattern.url_patterns, prefix + str(pattern.pattern), inner)
        elif inspect.unwrap(pattern.callback).__module__ == VIEWS:
            yield Endpoint(prefix, pattern.callback, ":".join((*namespaces, pattern.name or "")))
