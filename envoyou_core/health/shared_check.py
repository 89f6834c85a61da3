"""One check for all probes: it runs in one thread at a time, has a time limit, and its result is kept for a moment."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from envoyou_core.errors import describe
from envoyou_core.forks import ForkSafeLock
from envoyou_core.observability.redacted import RedactedLogger
from envoyou_core.steps import Flow, Wait

__all__ = ["SharedCheck"]

T = TypeVar("T")

log = RedactedLogger("envoyou")


@dataclass(frozen=True, slots=True)
class _Run(Generic[T]):
    """One run of the check.

    Attributes:
        future: its result.
        began_at: seconds of `time.monotonic`.
        pid: the process in which its thread is.
    """

    future: Future[T]
    began_at: float
    pid: int


class SharedCheck(Generic[T]):
    """Runs a check that may block for longer than a probe waits.

    However many probes there are, and however long the check takes, it runs once at a time.

    Args:
        name: the name of the thread, and of the check in the log.
        check: the check; may raise. The first of several failures is logged.
        time_limit: seconds after which a probe does not wait any more. The thread goes on.
        kept_for: seconds after its beginning for which a result is used again.
        runs_here: whether the check must run in the calling thread, as on a database that belongs to a test.
        in_thread: calls a function in a thread that is about to end, with what the framework needs around it.
    """

    def __init__(
        self,
        name: str,
        check: Callable[[], T],
        *,
        time_limit: float,
        kept_for: float,
        runs_here: Callable[[], bool] = lambda: False,
        in_thread: Callable[[Callable[[], object]], object] = lambda function: function(),
    ) -> None:
        self._name = name
        self._check = check
        self._time_limit = time_limit
        self._kept_for = kept_for
        self._runs_here = runs_here
        self._in_thread = in_thread
        self._lock = ForkSafeLock()
        self._last: _Run[T] | None = None
        self._has_failed = False

    def result(self) -> Flow[T]:
        """Return the result of the check, which may be that of another probe.

        Raises:
            TimeoutError: it has taken longer than the time limit.
            Exception: the check has raised it.
        """
        if self._runs_here():
            yield from ()
            return self._check()
        with self._lock:
            run = self._last
            if run is None or not self._is_usable(run):
                run = self._last = self._begin()
        result: T = yield Wait(run.future, run.began_at + self._time_limit)
        return result

    def _is_usable(self, run: _Run[T]) -> bool:
        # The thread of a run that the parent has begun does not exist in a forked child.
        if run.pid != os.getpid():
            return False
        return not run.future.done() or time.monotonic() - run.began_at < self._kept_for

    def _begin(self) -> _Run[T]:
        run: _Run[T] = _Run(Future(), time.monotonic(), os.getpid())
        # So that no probe that gives up can cancel it.
        run.future.set_running_or_notify_cancel()
        work = partial(self._in_thread, partial(self._run, run.future))
        threading.Thread(target=work, name=self._name, daemon=True).start()
        return run

    def _run(self, future: Future[T]) -> None:
        try:
            result = self._check()
        except Exception as error:
            if not self._has_failed:
                log.warning("%(name)s failed: %(error)s", {"name": self._name, "error": describe(error)})
            self._has_failed = True
            future.set_exception(error)
        else:
            self._has_failed = False
            future.set_result(result)
