"""Runs a worker in a child process that is restarted when the code changes, as `runserver` does for a server.

Django's own parent process kills its child on SIGTERM, and exits if the child cannot import a file that was just saved.
This one terminates the child gracefully, so that it returns its claims to the inbox, and waits until the code is fixed.
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

__all__ = ["run_with_reload"]

CODE_CHANGED = 3
"""The exit code of Django's child process after a change of the code."""

STOP_TIMEOUT = 2.0
"""Seconds to wait for the worker to return after it was stopped."""


def run_with_reload(work: Callable[[], object], *, stop: Callable[[], object]) -> None:
    """Call `work` in a process that is replaced when the code changes; SIGTERM and SIGINT end it.

    Args:
        work: runs until `stop` is called, outside the main thread.
        stop: makes `work` return.

    Raises:
        Exception: raised by `work`; the process is replaced when the code has changed.
    """
    if os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) != "true":
        _supervise_children()
    ended = threading.Event()
    failures: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:
            failures.append(error)
            # Ends the reloader only.
            _thread.interrupt_main()
        finally:
            ended.set()

    try:
        autoreload.run_with_reloader(run)
    finally:
        stop()
        ended.wait(STOP_TIMEOUT)
    for failure in failures:
        raise failure


def _supervise_children() -> NoReturn:
    child: subprocess.Popen[Any] | None = None

    def terminate(*_: int | FrameType | None) -> None:
        if child is None or child.poll() is not None:
            sys.exit(0)
        child.terminate()

    signal.signal(signal.SIGTERM, terminate)
    # A terminal sends SIGINT to the child as well.
    signal.signal(signal.SIGINT, terminate)
    files = autoreload.StatReloader()
    while True:
        code_of_child = dict(files.snapshot_files())
        environment = {**os.environ, autoreload.DJANGO_AUTORELOAD_ENV: "true"}
        # The arguments are those of this command.
        child = subprocess.Popen(autoreload.get_child_arguments(), env=environment, close_fds=False)  # noqa: S603
        exit_code = child.wait()
        if exit_code == 0:
            sys.exit(0)
        if exit_code != CODE_CHANGED:
            sys.stderr.write("The worker has ended and will be restarted when the code changes.\n")
            while dict(files.snapshot_files()) == code_of_child:
                time.sleep(files.SLEEP_TIME)
