"""User functions called when a worker process starts or stops and when an event is dead."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from envoyou_core.steps import Await, CallHandler, Step

__all__ = ["Hook", "Hooks", "call_hook"]

Hook = Callable[..., Any]
"""A sync or async function."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """The registered hooks, in the order of registration.

    Attributes:
        worker_start: called without arguments before a worker process takes its first event.
        worker_stop: called without arguments after a worker process has settled its last event, in reverse order.
        dead: called with the event and its last error: one line, or `None`.
    """

    worker_start: list[Hook] = field(default_factory=list)
    worker_stop: list[Hook] = field(default_factory=list)
    dead: list[Hook] = field(default_factory=list)


def call_hook(hook: Hook, *arguments: object) -> Step:
    """The step that calls `hook`, sync or async."""
    call = partial(hook, *arguments)
    return Await(call) if inspect.iscoroutinefunction(hook) else CallHandler(call)
