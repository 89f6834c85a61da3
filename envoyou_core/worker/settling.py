"""Stores how attempts have ended. Attempts that end at the same time share one commit."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from envoyou_core.errors import describe
from envoyou_core.inbox.group_commit import GroupCommit
from envoyou_core.inbox.records import Claim, Settlement, Status
from envoyou_core.observability.worker_notices import WorkerFailed
from envoyou_core.steps import Call, arun, run
from envoyou_core.worker.attempt import RunningAttempt
from envoyou_core.worker.engine import Engine
from envoyou_core.worker.failures import private_texts
from envoyou_core.worker.inbox_thread import InboxThread
from envoyou_core.worker.loop_tasks import LoopTasks
from envoyou_core.worker.threads import DaemonThreads

__all__ = ["Settler"]


class Settler:
    """Settles and reports the attempts of a worker. Its methods may be called in any thread.

    Args:
        engine: settles and reports attempts.
        name: the name of the `Webhooks`.
        loop: the worker's event loop.
        inbox_thread: settles an attempt again by itself if the shared commit has failed.
        handler_threads: call sync hooks.
        drop: called with each claim that is settled or given up.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        *,
        loop: LoopTasks,
        inbox_thread: InboxThread,
        handler_threads: DaemonThreads,
        drop: Callable[[Claim], None],
    ) -> None:
        self._engine = engine
        self._name = name
        self._loop = loop
        self._inbox_thread = inbox_thread
        self._handler_threads = handler_threads
        self._drop = drop
        self._commits = GroupCommit[tuple[Claim, Settlement], bool](
            engine.settle_all,
            # Whatever the error, each attempt of the batch is settled again by itself.
            is_outage=lambda _: True,
            name=f"envoyou-settler-{name}",
            on_thread_exit=engine.run_thread_exit_hooks,
        )

    def start(self) -> None:
        """Start the thread that commits.

        Raises:
            RuntimeError: the thread cannot be started.
        """
        self._commits.start()

    def close(self) -> None:
        """End the thread once all submitted attempts are committed."""
        self._commits.close()

    def settle(self, attempt: RunningAttempt) -> None:
        """Settle an attempt whose handlers have returned, report it and drop its claim."""
        if attempt.settlement is None or attempt.is_settled:
            self._report(attempt, attempt.is_settled)
            return
        commit = self._commits.submit((attempt.claim, attempt.settlement))
        commit.add_done_callback(partial(self._on_commit, attempt, attempt.settlement))

    def abandon(self, claim: Claim, error: BaseException) -> None:
        """Drop a claim that cannot be settled. Its lease expires, and the event is claimed again."""
        detail = describe(error, private=private_texts(claim.event))
        self._engine.notices.emit(WorkerFailed(self._name, detail, self._engine.lease))
        self._drop(claim)

    def _on_commit(self, attempt: RunningAttempt, settlement: Settlement, commit: Future[bool]) -> None:
        error = commit.exception()
        if error is None:
            self._report(attempt, commit.result())
            return
        self._engine.notices.emit(WorkerFailed(self._name, describe(error), retry_in=0.0))
        self._on_loop(attempt.claim, partial(self._settle_by_itself, attempt, settlement))

    async def _settle_by_itself(self, attempt: RunningAttempt, settlement: Settlement) -> None:
        settle = partial(self._engine.settle, attempt.claim, settlement)
        try:
            held = await self._inbox_thread.retry(settle)
        except Exception as error:
            self.abandon(attempt.claim, error)
        else:
            self._report(attempt, held)

    def _report(self, attempt: RunningAttempt, held: bool) -> None:
        settlement = attempt.settlement
        is_dead = settlement is not None and settlement.status is Status.DEAD
        if settlement is None or not held or (is_dead and self._engine.hooks.dead):
            # The inbox or the user's functions are called, which may block.
            self._on_loop(attempt.claim, partial(self._report_on_loop, attempt, held))
            return
        try:
            run(self._engine.report(attempt, held))
        finally:
            self._drop(attempt.claim)

    async def _report_on_loop(self, attempt: RunningAttempt, held: bool) -> None:
        async def offload(step: Call) -> Any:
            return await self._handler_threads.call(step.function)

        try:
            await arun(self._engine.report(attempt, held), offload=offload)
        finally:
            self._drop(attempt.claim)

    def _on_loop(self, claim: Claim, make: Callable[[], Any]) -> None:
        self._loop.run_soon(make, otherwise=partial(self._drop, claim))
