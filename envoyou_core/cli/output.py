"""How commands print results and report errors: data on standard output, everything else on standard error."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NoReturn

import typer
from rich.console import Console, Group
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from rich.theme import Theme

from envoyou_core.cli.target import target_of
from envoyou_core.errors import ConfigurationError, describe
from envoyou_core.redaction import printable, redact
from envoyou_core.references import ApplicationImportError
from envoyou_core.worker.failures import traceback_of

__all__ = [
    "PIPE_CLOSED",
    "fail",
    "ignore_closed_pipe",
    "is_narrow",
    "print_bytes",
    "print_colored",
    "print_json_line",
    "print_line",
    "print_note",
    "print_result",
    "print_text",
    "progress",
    "report_errors",
    "report_usage_errors",
    "reporting",
]

MAX_ERROR_LENGTH = 2_000
"""In characters. Higher than in the log, because the end of an error may say what to do."""

COLORS: Final = {
    "green": "color(28)",
    "yellow": "color(166)",
    "red": "color(160)",
    "blue": "color(33)",
    "cyan": "color(31)",
    "progress.percentage": "default",
    "progress.remaining": "default",
    "bar.complete": "color(33)",
    "bar.finished": "color(28)",
}
"""Colors that can be read on black and on white. A terminal's own green, yellow and cyan may vanish on white."""

PIPE_WIDTH = 10_000
"""In characters: more than the id, the type and the last error of an event need together."""

MIN_WIDTH = 110
"""Columns that the full table of events needs without breaking ids and times into lines."""

PIPE_CLOSED = 141
"""The exit code if the reader of standard output has gone, as a shell reports a process that SIGPIPE ended."""


class OutputClosedError(Exception):
    """The reader of standard output has gone."""


def is_narrow() -> bool:
    """Whether standard output is a terminal that is too narrow for the full tables."""
    return sys.stdout.isatty() and Console().width < MIN_WIDTH


def print_result(result: Table | Group | dict[str, Any] | Sequence[dict[str, Any]]) -> None:
    """Print a table, or several, or anything else as JSON."""
    if isinstance(result, Table | Group):
        # In a pipe, rows are not wrapped, so that grep finds an id on one line.
        console = _Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
        with _writing():
            console.print(result, highlight=False)
    else:
        print_text(json.dumps(result, indent=2))


def print_json_line(document: dict[str, Any]) -> None:
    """Print one line of a stream of JSON documents at once."""
    print_text(json.dumps(document))


def print_line(text: str) -> None:
    """Print one line of text at once, without interpreting it as markup."""
    print_colored(text)


def print_colored(text: str, style: str = "") -> None:
    """Print one line of text at once, in a style of Rich, without interpreting it as markup."""
    with _writing():
        _Console().print(escape(printable(text)), style=style or None, highlight=False, soft_wrap=True)
        sys.stdout.flush()


def print_text(text: str) -> None:
    """Print lines that contain no control characters, at once."""
    with _writing():
        print(text, flush=True)


def print_bytes(content: bytes) -> None:
    """Write bytes to standard output as they are."""
    with _writing():
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()


def print_note(text: str) -> None:
    """Print one line to standard error."""
    _Console(stderr=True).print(escape(redact(printable(text))), highlight=False, soft_wrap=True)


def fail(reason: str) -> NoReturn:
    """Print `reason` to standard error, with secrets redacted, and end the command with status 1."""
    console = _Console(stderr=True)
    console.print(f"[red]Error:[/] {escape(redact(printable(reason)))}", highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def reporting(command: Callable[..., None]) -> Callable[..., None]:
    """Make a command report any exception as one line on standard error, and end with 1."""

    @functools.wraps(command)
    def run(**given: Any) -> None:
        with report_errors(show_traceback=target_of(given["context"]).show_traceback):
            command(**given)

    return run


@contextmanager
def report_errors(*, show_traceback: bool = False) -> Iterator[None]:
    """Report any exception as one line on standard error, and end with 1; see `PIPE_CLOSED` for a closed pipe.

    Args:
        show_traceback: whether to print the traceback of the exception before.
    """
    try:
        yield
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except OutputClosedError:
        _discard_output()
        raise typer.Exit(PIPE_CLOSED) from None
    except ApplicationImportError as error:
        print(error.shown, file=sys.stderr, end="")
        fail(str(error))
    except Exception as error:
        if show_traceback:
            print(traceback_of(error), file=sys.stderr, end="")
        # The type of a configuration error adds nothing to its text.
        text = describe(error, longest=MAX_ERROR_LENGTH)
        if isinstance(error, ConfigurationError):
            text = text.removeprefix(f"{type(error).__qualname__}: ")
        fail(text)


@contextmanager
def progress(title: str, count: Callable[[], int]) -> Iterator[Callable[[int], object] | None]:
    """Show a progress bar on standard error, if that is a terminal.

    Args:
        title: the operation, such as `Requeueing`.
        count: returns the number of items.

    Yields:
        A function to call with the number of items that are done by then; `None` if nothing is shown.
    """
    if not sys.stderr.isatty():
        yield None
        return
    with Progress(console=_Console(stderr=True)) as bar:
        task = bar.add_task(title, total=count())
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def report_usage_errors() -> Iterator[None]:
    """Report a `ValueError` from the inbox about an argument like an argument that cannot be parsed."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


@contextmanager
def ignore_closed_pipe() -> Iterator[None]:
    """End the process quietly if the reader of its output has gone, as in `envoyou events list | head -1`."""
    try:
        yield
    except SystemExit as ending:
        # The pages of `--help` come from a console of Rich's own, which ends the process with 1.
        if isinstance(ending.__context__, BrokenPipeError):
            ending.code = PIPE_CLOSED
        raise
    finally:
        try:
            # Otherwise the interpreter flushes when it ends, and reports the error.
            sys.stdout.flush()
        except BrokenPipeError:
            _discard_output()
            sys.exit(PIPE_CLOSED)


@contextmanager
def _writing() -> Iterator[None]:
    # A `BrokenPipeError` of a database's connection is another matter.
    try:
        yield
    except BrokenPipeError:
        raise OutputClosedError from None


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Console(Console):
    def __init__(self, **given: Any) -> None:
        super().__init__(theme=Theme(COLORS), **given)

    def on_broken_pipe(self) -> None:
        """Leave it to the callers of `print`, because Rich would end the process."""
        raise BrokenPipeError
