"""Delivers what is due: one attempt at a time for each delivery, and retries by the webhook's schedule."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from envoyou_core.simulator.message import compose
from envoyou_core.simulator.outbox import Attempt, DueDelivery, Outbox
from envoyou_core.simulator.registry import Registry
from envoyou_core.simulator.transport import Answer, DeliveryError, Transport
from envoyou_core.simulator.trouble import Trouble

__all__ = ["Sender"]

MAX_WAIT = 3600.0
"""Seconds. The sender then looks at the clock again, which may have been set."""


class Sender:
    """Delivers events at least once.

    Args:
        outbox: what is delivered.
        registry: the webhooks.
        transport: sends the requests.
        trouble: what goes wrong.
        clock: returns epoch seconds.
        concurrency: the maximum number of requests at a time.
        on_attempt: called with each attempt after it is recorded.
    """

    def __init__(
        self,
        outbox: Outbox,
        registry: Registry,
        transport: Transport,
        *,
        trouble: Trouble,
        clock: Callable[[], float],
        concurrency: int,
        on_attempt: Callable[[Attempt | None], object],
    ) -> None:
        self._outbox = outbox
        self._registry = registry
        self._transport = transport
        self._trouble = trouble
        self._clock = clock
        self._concurrency = concurrency
        self._on_attempt = on_attempt
        self._woken = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    def wake(self) -> None:
        """Look for due deliveries now. Call it on the event loop."""
        self._woken.set()

    async def run(self) -> None:
        """Deliver what is due, until it is cancelled.

        Raises:
            Exception: the sender itself has failed, for example because the disk is full.
        """
        self._outbox.recover()
        try:
            while self._failure is None:
                self._woken.clear()
                self.begin_due()
                await self._wait()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        raise self._failure

    async def deliver_due(self) -> None:
        """Make one attempt of each delivery that is due now, of at most `concurrency`."""
        self.begin_due()
        await asyncio.gather(*self._tasks)

    def begin_due(self) -> None:
        """Begin an attempt of each delivery that is due now, as far as `concurrency` allows."""
        if free := self._concurrency - len(self._tasks):
            for delivery in self._outbox.claim(self._clock(), free):
                task = asyncio.create_task(self._attempt(delivery))
                self._tasks.add(task)
                task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            self._failure = self._failure or task.exception()
        self._woken.set()

    async def _wait(self) -> None:
        due = self._outbox.next_due() if len(self._tasks) < self._concurrency else None
        seconds = MAX_WAIT if due is None else min(MAX_WAIT, max(0.0, due - self._clock()))
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()

    async def _attempt(self, delivery: DueDelivery) -> None:
        webhook = self._registry.get(delivery.webhook_id)
        if webhook is None or not webhook.active:
            self._outbox.cancel(delivery)
            self._on_attempt(None)
            return
        sent_at = self._clock()
        answer: Answer | None = None
        error = ""
        try:
            answer = await self._transport.post(webhook.url, compose(delivery, webhook, self._trouble, sent_at))
        except DeliveryError as failure:
            error = str(failure)
        number = delivery.attempts + 1
        delivered = answer is not None and 200 <= answer.status < 300
        if answer is not None and self._trouble.hits("dropped_answers", delivery.sequence, number):
            delivered, error = False, "the answer was dropped"
        ended_at = self._clock()
        delay = None if delivered else webhook.retry_policy.delay_before(number + 1)
        attempt = self._outbox.record(
            delivery,
            sent_at=sent_at,
            seconds=ended_at - sent_at,
            status=None if answer is None else answer.status,
            answer="" if answer is None else answer.text,
            error=error,
            delivered=delivered,
            next_due=None if delay is None else ended_at + delay,
        )
        self._on_attempt(attempt)
