"""How commands print results and report errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from envoyou_core.errors import ConfigurationError, describe
from envoyou_core.redaction import printable, redact

__all__ = ["fail", "print_line", "print_result", "report_errors", "report_usage_errors"]

MAX_ERROR_LENGTH = 2_000
"""In characters. Higher than in the log, because the end of an error may say what to do."""

PIPE_WIDTH = 10_000
"""In characters: more than the id, the type and the last error of an event need together."""


def print_result(result: Table | dict[str, Any] | list[dict[str, Any]]) -> None:
    """Print a table, or anything else as JSON."""
    if isinstance(result, Table):
        # In a pipe, rows are not wrapped, so that grep finds an id on one line.
        Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(result, highlight=False)
    else:
        print(json.dumps(result, indent=2))


def print_line(text: str) -> None:
    """Print one line of text, without interpreting it as markup."""
    Console().print(escape(printable(text)), highlight=False, soft_wrap=True)


def fail(reason: str) -> NoReturn:
    """Print `reason` to standard error, with secrets redacted, and end the command with status 1."""
    console = Console(stderr=True)
    console.print(f"[red]Error:[/] {escape(redact(printable(reason)))}", highlight=False, soft_wrap=True)
    raise typer.Exit(1)


@contextmanager
def report_errors(doing: str = "") -> Iterator[None]:
    """Report any exception as one line on standard error.

    Args:
        doing: what failed, such as "cannot start the worker".
    """
    try:
        yield
    except (typer.Exit, typer.BadParameter):
        raise
    except Exception as error:
        # The type of a configuration error adds nothing to its text.
        text = describe(error, longest=MAX_ERROR_LENGTH)
        if isinstance(error, ConfigurationError):
            text = text.removeprefix(f"{type(error).__qualname__}: ")
        fail(f"{doing}: {text}" if doing else text)


@contextmanager
def report_usage_errors() -> Iterator[None]:
    """Report a `ValueError` from the inbox about an argument like an argument that cannot be parsed."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
