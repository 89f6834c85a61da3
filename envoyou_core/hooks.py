"""Functions of the application that are called on events in the life of the worker or of a webhook event."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import partial
from typing import Any

import msgspec

from envoyou_core.providers import Provider
from envoyou_core.steps import Await, CallHandler, Step

__all__ = ["Hook", "HookKind", "Hooks", "call_hook"]

Hook = Callable[..., Any]
"""A function, sync or async; hooks of the kinds `NOTICE` and `ALERT` must be sync."""


class HookKind(StrEnum):
    """When a hook is called."""

    ACCEPTANCE = "acceptance"
    AROUND_HANDLER = "around_handler"
    PROVIDER = "provider"
    WORKER_START = "worker_start"
    WORKER_STOP = "worker_stop"
    DEAD = "dead"
    ALERT = "alert"
    NOTICE = "notice"


class Hooks(msgspec.Struct, frozen=True):
    """The registered hooks, in the order of registration. Iteration yields pairs of kind and hook.

    Attributes:
        acceptance: traces the acceptance of an event; see `envoyou_core.reception.tracing`.
        around_handler: called with the event, a handler's name and the attempt; returns a context manager.
        provider: the providers of handlers' parameters, each a `Provider`.
        worker_start: called without arguments before a worker process claims its first event.
        worker_stop: called without arguments after a worker process has settled its last event, in reverse order.
        dead: called with the event and its last error: one line, or `None`.
        alert: called with each alert that fires or resolves.
        notice: called with each lifecycle notice.
    """

    acceptance: list[Hook] = msgspec.field(default_factory=list)
    around_handler: list[Hook] = msgspec.field(default_factory=list)
    provider: list[Provider] = msgspec.field(default_factory=list)
    worker_start: list[Hook] = msgspec.field(default_factory=list)
    worker_stop: list[Hook] = msgspec.field(default_factory=list)
    dead: list[Hook] = msgspec.field(default_factory=list)
    alert: list[Hook] = msgspec.field(default_factory=list)
    notice: list[Hook] = msgspec.field(default_factory=list)

    def add(self, kind: HookKind, hook: Hook) -> None:
        """Append a hook."""
        self._of(kind).append(hook)

    def __iter__(self) -> Iterator[tuple[HookKind, Hook]]:
        return iter([(kind, hook) for kind in HookKind for hook in self._of(kind)])

    def _of(self, kind: HookKind) -> list[Any]:
        hooks: list[Any] = getattr(self, kind.value)
        return hooks


def call_hook(hook: Hook, *arguments: object) -> Step:
    """Return the step that calls `hook`, sync or async."""
    call = partial(hook, *arguments)
    return Await(call) if inspect.iscoroutinefunction(hook) else CallHandler(call)
