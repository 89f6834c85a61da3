"""Finds the URLs at which the project receives webhooks, in included URLconfs as well."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.urls import LocalePrefixPattern, URLPattern, URLResolver, get_resolver, reverse
from django.urls.resolvers import RoutePattern

__all__ = ["Endpoint", "endpoints"]

VIEWS = "envoyou_django.views"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A URL pattern that leads to a view of this app.

    Attributes:
        prefix: the route under which the project includes it, or the view's own.
        view: the callback of the pattern: a view of this app, possibly decorated.
        name: the name to reverse it by, with its namespaces.
        is_localized: whether the prefix depends on the language, as in `i18n_patterns`.
    """

    prefix: str
    view: Callable[..., Any]
    name: str
    is_localized: bool = False

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
    return list(_endpoints(get_resolver().url_patterns, "", (), False))


def _endpoints(
    patterns: Sequence[URLPattern | URLResolver], prefix: str, namespaces: tuple[str, ...], is_localized: bool
) -> Iterator[Endpoint]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            inner = namespaces if pattern.namespace is None else (*namespaces, pattern.namespace)
            localized = is_localized or isinstance(pattern.pattern, LocalePrefixPattern)
            yield from _endpoints(pattern.url_patterns, prefix + str(pattern.pattern), inner, localized)
        elif inspect.unwrap(pattern.callback).__module__ == VIEWS:
            # If the view is not included, this is its whole route. That of the included URLs is a regular expression.
            route = prefix + str(pattern.pattern) if isinstance(pattern.pattern, RoutePattern) else prefix
            yield Endpoint(route, pattern.callback, ":".join((*namespaces, pattern.name or "")), is_localized)
