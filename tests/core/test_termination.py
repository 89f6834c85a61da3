"""SIGTERM has its usual effect only after the worker has stopped."""

import asyncio
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from envoyou_core import Webhooks
from envoyou_core.inbox import NewEvent
from envoyou_core.testing import sample_event
from envoyou_core.worker.termination import TerminationSignal

PATIENCE = 20
SECRET = "whsec_test"


async def until(condition):
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - other threads bring it about
            await asyncio.sleep(0.001)


@pytest.fixture
def received():
    """The signals that the server has received: like uvicorn, it has set a function that handles SIGTERM."""
    signals = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
    yield signals
    signal.signal(signal.SIGTERM, before)


def termination(*, is_working=True, stop=lambda: None):
    return TerminationSignal(is_working=lambda: is_working, stop=stop)


async def test_the_server_receives_the_signal_after_the_worker_has_stopped(received):
    stopping, stopped = threading.Event(), threading.Event()

    def stop():
        stopping.set()
        stopped.wait(PATIENCE)

    termination(stop=stop).install()
    signal.raise_signal(signal.SIGTERM)
    await until(stopping.is_set)
    signal.raise_signal(signal.SIGTERM)
    assert received == []
    stopped.set()
    await until(lambda: received)
    assert received == [signal.SIGTERM]


async def test_the_server_receives_the_signal_even_if_the_worker_cannot_be_stopped(received, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    termination(stop=lambda: 1 // 0).install()
    signal.raise_signal(signal.SIGTERM)
    await until(lambda: received)


async def test_without_a_worker_the_server_receives_the_signal_at_once(received):
    termination(is_working=False).install()
    signal.raise_signal(signal.SIGTERM)
    assert received == [signal.SIGTERM]


def test_a_process_that_the_signal_ends_at_once_ends_after_the_worker_has_stopped():
    script = """
        import asyncio, os, signal, time
        from envoyou_core.worker.termination import TerminationSignal

        def stop():
            time.sleep(0.2)
            print("stopped", flush=True)

        async def main():
            TerminationSignal(is_working=lambda: True, stop=stop).install()
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(60)

        asyncio.run(main())
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60)
    assert ran.returncode == -signal.SIGTERM, ran.stderr
    assert ran.stdout == "stopped\n"


def test_a_signal_while_the_process_ends_does_not_end_the_worker():
    """hypercorn signals its worker processes as soon as one of them has ended."""
    script = """
        import asyncio, atexit, os, signal, time
        from envoyou_core.worker.termination import TerminationSignal

        @atexit.register
        def stop():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)
            print("stopped", flush=True)

        async def main():
            TerminationSignal(is_working=lambda: True, stop=lambda: None).install()

        asyncio.run(main())
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, "stopped\n"), ran.stderr


async def test_a_process_that_ignores_the_signal_goes_on_to():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        termination().install()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_a_server_that_handles_the_signal_by_its_loop_receives_it_at_once():
    loop = asyncio.get_running_loop()
    received, stopped = asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, received.set)
    try:
        termination(stop=lambda: loop.call_soon_threadsafe(stopped.set)).install()
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(received.wait(), PATIENCE)
        await asyncio.wait_for(stopped.wait(), PATIENCE)
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def test_outside_the_main_thread_and_without_a_loop_nothing_is_installed(received):
    before = signal.getsignal(signal.SIGTERM)
    delayed = termination()
    await asyncio.to_thread(delayed.install)
    await asyncio.to_thread(lambda: asyncio.run(on_a_loop(delayed)))
    assert signal.getsignal(signal.SIGTERM) is before


async def on_a_loop(delayed):
    delayed.install()


async def test_the_running_attempt_is_finished_and_no_worker_starts_again(received):
    webhooks = Webhooks(secret=SECRET, inbox="memory:")
    begun, finished = asyncio.Event(), asyncio.Event()

    @webhooks.on("user.created")
    async def handler(event):
        begun.set()
        await finished.wait()

    event = sample_event("user.created")
    webhooks.inbox.add(NewEvent(event)).result(PATIENCE)
    webhooks.wake()
    await asyncio.wait_for(begun.wait(), PATIENCE)
    signal.raise_signal(signal.SIGTERM)
    await until(lambda: webhooks._handoff._worker is None)
    assert webhooks._handoff.is_working
    assert received == []
    finished.set()
    await until(lambda: received)
    assert webhooks.inbox.get(event.id).status == "processed"
    webhooks.wake()
    assert not webhooks._handoff.alive
