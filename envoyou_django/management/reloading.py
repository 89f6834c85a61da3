"""Working in a child process that is begun anew whenever the code changes: what `runserver` does, for a worker.

Django's own parent process kills its child on SIGTERM, and ends with a child that cannot import what was just saved.
A worker's child is asked to end, so that it gives back what it holds; and a mistake in the code is waited out.
"""

from __future__ import annotations

import _thread
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from django.utils import autoreload

__all__ = ["run_reloading"]

CODE_CHANGED = 3
"""The exit code of a child of Django's that has noticed a change."""

SECONDS_TO_RETURN = 2.0


def run_reloading(work: Callable[[], object], *, stop: Callable[[], object]) -> None:
    """Call `work` in a process that is replaced when the code changes; SIGTERM and SIGINT end it.

    Args:
        work: runs in another thread than the main one, until `stop`.
        stop: lets `work` return.

    Raises:
        Exception: what `work` raised; a new process is begun when the code has changed.
    """
    if os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) != "true":
        _replace_children()
    ended = threading.Event()
    failures: list[Exception] = []

    def work_or_give_up() -> None:
        try:
            work()
        except Exception as error:
            failures.append(error)
            # Ends the reloader, and nothing else.
            _thread.interrupt_main()
        finally:
            ended.set()

    try:
        autoreload.run_with_reloader(work_or_give_up)
    finally:
        stop()
        ended.wait(SECONDS_TO_RETURN)
    for failure in failures:
        raise failure


def _replace_children() -> NoReturn:
    child: subprocess.Popen[Any] | None = None

    def end(*_: int | FrameType | None) -> None:
        if child is None or child.poll() is not None:
            sys.exit(0)
        child.terminate()

    signal.signal(signal.SIGTERM, end)
    # From a terminal the child has it, too.
    signal.signal(signal.SIGINT, end)
    files = autoreload.StatReloader()
    while True:
        code_of_child = dict(files.snapshot_files())
        environment = {**os.environ, autoreload.DJANGO_AUTORELOAD_ENV: "true"}
        # This very command, once more.
        child = subprocess.Popen(autoreload.get_child_arguments(), env=environment, close_fds=False)  # noqa: S603
        ended = child.wait()
        if ended == 0:
            sys.exit(0)
        if ended != CODE_CHANGED:
            sys.stderr.write("It is begun anew when the code has changed.\n")
            while dict(files.snapshot_files()) == code_of_child:
                time.sleep(files.SLEEP_TIME)
