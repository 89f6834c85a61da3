"""Runs Python commands in forks of a process that has imported the libraries: importing takes most of their time.

    python forking.py

Standard input has one command a line, as JSON: `number`, `words`, `folder`, `environment` and `output`, a file.
Standard output gets its `number` with its `pid`, and later with its exit `code`.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, NoReturn, TextIO

PRELOADED = (
    *(
        "aiosqlite",
        "asyncio",
        "concurrent.futures",
        "http.server",
        "logging.config",
        "sqlite3",
        "ssl",
        "urllib.request",
    ),
    *("django", "django.contrib.admin", "django.core.management", "django.db.models", "django.test"),
    *("envoyou_core", "envoyou_core.cli.command_line", "envoyou_core.inbox.sql.inbox", "envoyou_core.testing"),
    *("fastapi", "fastapi.testclient", "flask", "flask.cli", "flask_sqlalchemy", "uvicorn", "uvicorn.main"),
    *("httpx2", "msgspec", "psycopg", "pydantic", "pytest", "rich.console", "rich.table", "rich.traceback", "typer"),
    *("sqlalchemy", "sqlalchemy.dialects.postgresql", "sqlalchemy.dialects.sqlite", "sqlalchemy.ext.asyncio"),
)
"""What is installed of these is imported before the first command."""

COMMANDS = {"envoyou", "flask", "uvicorn", "django-admin", "gunicorn"}


def main() -> None:
    scripts = {point.name: point for point in entry_points(group="console_scripts") if point.name in COMMANDS}
    del sys.path[0]
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    woken, waking = os.pipe()
    os.set_blocking(waking, False)
    signal.set_wakeup_fd(waking)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}
    commands = b""
    gc.collect()
    gc.freeze()

    while True:
        readable, _, _ = select.select([0, woken], [], [])
        if woken in readable:
            os.read(woken, 1024)
            with contextlib.suppress(ChildProcessError):
                while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                    answer(number=running.pop(ended[0]), code=os.waitstatus_to_exitcode(ended[1]))
        if 0 in readable:
            if not (received := os.read(0, 65_536)):
                return
            *lines, commands = (commands + received).split(b"\n")
            for line in lines:
                command = json.loads(line)
                if not (pid := os.fork()):
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    os.close(woken)
                    os.close(waking)
                    end(run, command, scripts)
                running[pid] = command["number"]
                answer(number=command["number"], pid=pid)


def answer(**fields: int) -> None:
    os.write(1, json.dumps(fields).encode() + b"\n")


def end(function: Callable[..., object], *arguments: object) -> NoReturn:
    """Call a function and end the process as the interpreter would, except that it does not clear its modules."""
    code: object = 1
    try:
        code = function(*arguments)
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if isinstance(code, str):
        print(code, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def opened_anew(number: int) -> TextIO:
    return open(number, "w" if number else "r", buffering=1, closefd=False)


def run(command: dict[str, Any], scripts: dict[str, Any]) -> Any:
    """Become the command, in a group of its own."""
    os.setsid()
    os.chdir(command["folder"])
    os.environ.clear()
    os.environ.update(command["environment"])
    output = os.open(command["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for opened, standard in ((null, 0), (output, 1), (output, 2)):
        os.dup2(opened, standard)
    # The streams of before have descriptors that are replaced; they stay open as long as the process.
    sys.stdin, sys.stdout, sys.stderr = (opened_anew(number) for number in range(3))
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    random.seed()
    first, *words = command["words"]
    if first in scripts:
        sys.argv = [first, *words]
        return scripts[first].load()()
    if words[0] == "-m":
        sys.argv = words[1:]
        sys.path.insert(0, command["folder"])
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv = words[1:]
        sys.path.insert(0, "")
        exec(words[1], {"__name__": "__main__"})
    else:
        sys.argv = words
        sys.path.insert(0, command["folder"])
        runpy.run_path(words[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    main()
