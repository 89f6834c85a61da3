"""A cache for the secret callable, so that a flood of forged requests does not cause a flood of look-ups."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from envoyou_core.errors import UnavailableError
from envoyou_core.forks import call_in_forked_children
from envoyou_core.steps import Flow, Wait

__all__ = ["ANSWER_LIFETIME", "MAX_ANSWERS", "AnswerCache"]

ANSWER_LIFETIME: Final = 5.0
"""Seconds. A secret that is added or removed takes effect within this time."""

MAX_ANSWERS: Final = 1_000
"""The maximum number of cached answers with a value, and of those without one."""

MAX_WAIT: Final = 3.0
"""Seconds for which a request waits for another request's look-up."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class _Answer(Generic[Value]):
    value: Value | None
    asked_at: float


class _AbandonedError(Exception):
    """The request that did the look-up was cancelled; another request has to repeat it."""


class AnswerCache(Generic[Value]):
    """Caches the values of webhook ids, `None` included, for a few seconds. Safe to use from any thread.

    Concurrent requests for one id share one look-up. A failure is raised in all requests that wait for the look-up, and
    is not cached. Answers without a value have a limit of their own, so that invented ids, which anyone can send, do
    not evict those of real endpoints.

    Args:
        clock: returns epoch seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._reset()
        call_in_forked_children(self._reset)

    def _reset(self) -> None:
        # In a forked child, the threads that hold the lock or have a look-up in progress do not exist.
        self._lock = threading.Lock()
        self._pending: dict[str, Future[Value | None]] = {}
        self._known: dict[str, _Answer[Value]] = {}
        self._unknown: dict[str, _Answer[Value]] = {}

    def find(self, webhook_id: str, look_up: Callable[[], Flow[Value | None]]) -> Flow[Value | None]:
        """Return the cached value of a webhook id, or look it up.

        Raises:
            UnavailableError: another request's look-up takes too long. Exceptions of `look_up` are passed on.
        """
        while True:
            with self._lock:
                answer = self._recent(webhook_id)
                if answer is not None:
                    return answer.value
                pending = self._pending.get(webhook_id)
                if pending is None:
                    own: Future[Value | None] = Future()
                    # A running future cannot be cancelled by one of several requests that wait for it.
                    own.set_running_or_notify_cancel()
                    self._pending[webhook_id] = own
            if pending is None:
                return (yield from self._look_up(webhook_id, look_up, own))
            try:
                value: Value | None = yield Wait(pending, time.monotonic() + MAX_WAIT)
            except _AbandonedError:
                continue
            except TimeoutError as error:
                raise UnavailableError(f"the secret callable did not answer within {MAX_WAIT:g} s") from error
            return value

    def _look_up(
        self, webhook_id: str, look_up: Callable[[], Flow[Value | None]], own: Future[Value | None]
    ) -> Flow[Value | None]:
        # The age counts from the start of the look-up, because the answer may be as old as that.
        asked_at = self._clock()
        try:
            value = yield from look_up()
        except BaseException as error:
            with self._lock:
                self._pending.pop(webhook_id, None)
            own.set_exception(error if isinstance(error, Exception) else _AbandonedError())
            raise
        with self._lock:
            self._pending.pop(webhook_id, None)
            self._remember(webhook_id, _Answer(value, asked_at))
        own.set_result(value)
        return value

    def _recent(self, webhook_id: str) -> _Answer[Value] | None:
        answer = self._known.get(webhook_id) or self._unknown.get(webhook_id)
        # After the clock is set back an answer may seem to be from the future. Its age is unknown, so it has expired.
        return answer if answer and 0 <= self._clock() - answer.asked_at < ANSWER_LIFETIME else None

    def _remember(self, webhook_id: str, answer: _Answer[Value]) -> None:
        self._known.pop(webhook_id, None)
        self._unknown.pop(webhook_id, None)
        answers = self._unknown if answer.value is None else self._known
        answers[webhook_id] = answer
        if len(answers) > MAX_ANSWERS:
            # A dict keeps the order of insertion, so the first answer is the oldest.
            del answers[next(iter(answers))]
