"""A worker that is a process of its own, for sites that idle or that keep the work away from their web servers."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence

from envoyou_core.handoff.threads import DaemonThreads
from envoyou_core.handoff.worker import Worker
from envoyou_core.processing.hooks import Hook, Hooks, call_hook
from envoyou_core.steps import Call, Flow, arun

__all__ = ["run_worker"]

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run_worker(worker: Worker, hooks: Hooks, *, shutdown_timeout: float) -> None:
    """Work in the main thread until SIGTERM or SIGINT, then finish within `shutdown_timeout` seconds what was begun.

    A second signal ends the process at once; what it had in hand is taken over when its leases have run out.

    Raises:
        Exception: whatever a hook at the start raises: a worker that could not be set up takes no event.
    """
    asyncio.run(_work(worker, hooks, shutdown_timeout))


async def _work(worker: Worker, hooks: Hooks, shutdown_timeout: float) -> None:
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, _stop, loop, lambda: worker.stop(shutdown_timeout))
    threads = DaemonThreads(1, "envoyou-hooks")

    async def offload(step: Call) -> object:
        return await threads.call(step.function)

    await arun(_call_all(hooks.worker_start), offload=offload)
    try:
        await worker.run()
    finally:
        await arun(_call_all(hooks.worker_stop[::-1]), offload=offload)
        threads.close()


def _stop(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    for number in STOP_SIGNALS:
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)
    stop()


def _call_all(hooks: Sequence[Hook]) -> Flow[None]:
    for hook in hooks:
        yield call_hook(hook)
