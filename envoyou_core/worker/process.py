"""A worker in a process of its own, separate from the web servers."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Sequence
from functools import partial

from envoyou_core.hooks import Hook, Hooks, call_hook
from envoyou_core.steps import Call, Flow, arun
from envoyou_core.worker.threads import DaemonThreads
from envoyou_core.worker.worker import Worker

__all__ = ["run_worker"]

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run_worker(
    worker: Worker,
    hooks: Hooks,
    *,
    shutdown_timeout: float,
    in_context: Callable[[Callable[[], object]], object],
    run_thread_exit_hooks: Callable[[], object],
) -> None:
    """Run `worker` until SIGTERM or SIGINT, then finish running attempts within `shutdown_timeout` seconds.

    A second signal ends the process at once; its events are claimed again when their leases expire. Signals are
    received in the main thread only. In another thread, the worker runs until `Worker.stop` is called.

    Args:
        worker: handles the events.
        hooks: called before the worker's first event and after its last.
        shutdown_timeout: seconds.
        in_context: calls a sync hook in the contexts that the framework needs.
        run_thread_exit_hooks: called in the thread of the sync hooks before it ends.

    Raises:
        Exception: an `on_worker_start` hook has failed. The worker claims no event then.
    """
    asyncio.run(_run(worker, hooks, shutdown_timeout, in_context, run_thread_exit_hooks))


async def _run(
    worker: Worker,
    hooks: Hooks,
    shutdown_timeout: float,
    in_context: Callable[[Callable[[], object]], object],
    run_thread_exit_hooks: Callable[[], object],
) -> None:
    loop = asyncio.get_running_loop()
    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, _stop, loop, lambda: worker.stop(shutdown_timeout))
    threads = DaemonThreads(1, "envoyou-hooks", on_thread_exit=run_thread_exit_hooks)

    async def offload(step: Call) -> object:
        return await threads.call(partial(in_context, step.function))

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
