"""A worker that is a process of its own, for sites that idle or that keep the work away from their web servers."""

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
    """Work until SIGTERM or SIGINT, then finish within `shutdown_timeout` seconds what was begun.

    A second signal ends the process at once; what it had in hand is taken over when its leases have run out. In another
    thread than the main one no signal is heard: there, it works until somebody stops the worker.

    Args:
        worker: takes the events.
        hooks: what is called before its first and after its last.
        shutdown_timeout: seconds.
        in_context: calls a sync hook with all that the framework needs around it.
        run_thread_exit_hooks: called as the last thing in the thread in which sync hooks run.

    Raises:
        Exception: whatever a hook at the start raises: a worker that could not be set up takes no event.
    """
    asyncio.run(_work(worker, hooks, shutdown_timeout, in_context, run_thread_exit_hooks))


async def _work(
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
