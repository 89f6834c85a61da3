"""How far something is that takes long: for people who watch a terminal, and for nobody else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["progress"]

Advance = Callable[[int], None]

LINE_INTERVAL = 2.0
"""Seconds between two lines, where there is no bar."""


@contextmanager
def progress(stream: Any, title: str, total: int | None) -> Iterator[Advance]:
    """A bar where rich is installed, else a line now and then; nothing where `stream` is no terminal.

    Args:
        stream: the command's `stderr`.
        title: what is being done.
        total: how much there is to be done; `None` where that is not known.

    Yields:
        What is to be told how much more has been done.
    """
    if not stream.isatty():
        yield lambda _: None
        return
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield _lines(stream, title, total)
        return
    with Progress(console=Console(file=sys.stderr), transient=False) as bar:
        task = bar.add_task(title, total=total)
        yield lambda more: bar.advance(task, more)


def _lines(stream: Any, title: str, total: int | None) -> Advance:
    done = 0
    told_at = time.monotonic()
    stream.write(f"{title} ...")

    def advance(more: int) -> None:
        nonlocal done, told_at
        done += more
        if time.monotonic() - told_at >= LINE_INTERVAL or done == total:
            told_at = time.monotonic()
            stream.write(f"{title}: {done}" if total is None else f"{title}: {done} of {total}")

    return advance
