"""The recent answers of a secret callable, so that a flood of unproven requests does not become a flood of look-ups."""

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
"""Seconds. A secret that is added or removed takes effect within them."""

MAX_ANSWERS: Final = 1_000
"""Answers remembered of each kind, with a value and without."""

MAX_WAIT: Final = 3.0
"""Seconds for which a request waits for the answer that another request has asked for."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class _Answer(Generic[Value]):
    value: Value | None
    asked_at: float


class _AbandonedError(Exception):
    """The request that asked was cancelled: another one has to ask."""


class AnswerCache(Generic[Value]):
    """Remembers what is known of a webhook id, or that nothing is, for a few seconds; usable from several threads.

    Concurrent requests for one id share one look-up. A failure is not remembered: those that wait share it, and the
    next request asks again. Answers without a value have room of their own, so that invented ids, which anyone can
    send, do not displace those of real endpoints.

    Args:
        clock: epoch seconds.
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

    def find(self, webhook_id: str, ask: Callable[[], Flow[Value | None]]) -> Flow[Value | None]:
        """The remembered answer for a webhook id, or the one that `ask` gives now.

        Raises:
            UnavailableError: another request's look-up takes too long, or whatever `ask` raises.
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
                return (yield from self._look_up(webhook_id, ask, own))
            try:
                value: Value | None = yield Wait(pending, time.monotonic() + MAX_WAIT)
            except _AbandonedError:
                continue
            except TimeoutError as error:
                raise UnavailableError(f"the secret callable did not answer within {MAX_WAIT:g} s") from error
            return value

    def _look_up(
        self, webhook_id: str, ask: Callable[[], Flow[Value | None]], own: Future[Value | None]
    ) -> Flow[Value | None]:
        # The age counts from the question, because the answer may be as old as that.
        asked_at = self._clock()
        try:
            value = yield from ask()
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
        # A clock that was set back makes an answer look younger than it is, so one from the future counts as old.
        return answer if answer and 0 <= self._clock() - answer.asked_at < ANSWER_LIFETIME else None

    def _remember(self, webhook_id: str, answer: _Answer[Value]) -> None:
        self._known.pop(webhook_id, None)
        self._unknown.pop(webhook_id, None)
        answers = self._unknown if answer.value is None else self._known
        answers[webhook_id] = answer
        if len(answers) > MAX_ANSWERS:
            # In the order in which they came, so the first one is the oldest.
            del answers[next(iter(answers))]
