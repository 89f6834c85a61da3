"""Shows the progress of a long operation on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["progress"]

Advance = Callable[[int], None]

LINE_INTERVAL = 2.0
"""Seconds between two lines, without a progress bar."""


@contextmanager
def progress(stream: Any, title: str, total: int | None) -> Iterator[Advance]:
    """Show a progress bar if rich is installed, else a line every few seconds; nothing if `stream` is not a terminal.

    Args:
        stream: the command's `stderr`.
        title: the operation, such as `Deleting`.
        total: the number of items; `None` if it is unknown.

    Yields:
        A function to call with the number of further items that are done.
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
    written_at = time.monotonic()
    stream.write(f"{title} ...")

    def advance(more: int) -> None:
        nonlocal done, written_at
        done += more
        if time.monotonic() - written_at >= LINE_INTERVAL or done == total:
            written_at = time.monotonic()
            stream.write(f"{title}: {done}" if total is None else f"{title}: {done} of {total}")

    return advance
