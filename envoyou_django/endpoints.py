"""Where in the project's URLs webhooks are received, however deep they are included."""

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
    """One place at which webhooks are received.

    Attributes:
        prefix: of the URLs that lead there, as the project has written it.
        view: what Django calls: a view of this app, or something that is wrapped around it.
        name: by which it is reversed, with its namespaces.
    """

    prefix: str
    view: Callable[..., Any]
    name: str

    @property
    def path(self) -> str:
        """Its path.

        Raises:
            NoReverseMatch: something in it has to be filled in.
        """
        found: str = reverse(self.name)
        return found


def endpoints() -> list[Endpoint]:
    """All there are, in the order in which Django would find them."""
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
