"""Shortens the traceback of a user's function: it begins where that function is called."""

from __future__ import annotations

import os
from itertools import takewhile
from pathlib import Path
from traceback import FrameSummary, StackSummary, TracebackException
from types import TracebackType
from typing import Final

__all__ = ["leave_out_callers", "without_callers"]

OWN: Final = tuple(
    f"{Path(__file__).parents[2] / package}{os.sep}"
    for package in ("envoyou_core", "envoyou_django", "envoyou_fastapi", "envoyou_flask", "pytest_envoyou")
)
"""How the names of this library's files begin."""

BETWEEN: Final = tuple(
    str(Path(os.__file__).parent / part)
    for part in (f"asyncio{os.sep}", f"concurrent{os.sep}", "contextlib.py", "threading.py")
)
"""How the names of files begin whose functions may lie between this library and the user's function."""


ADAPTERS_OF_LOOPS: Final = tuple(f"{os.sep}{package}{os.sep}" for package in ("asgiref", "anyio"))
"""Parts of the names of files that call functions on another thread or event loop."""


def leave_out_callers(formatted: TracebackException) -> None:
    """Leave out the frames that lead to the call of a user's function, in causes and groups as well.

    The traceback of an error of this library itself stays as it is.
    """
    remaining: list[TracebackException | None] = [formatted]
    while remaining:
        one = remaining.pop()
        if one is None:
            continue
        remaining += [one.__cause__, one.__context__, *(one.exceptions or ())]
        callers = list(takewhile(_is_caller, one.stack))
        if any(frame.filename.startswith(OWN) for frame in callers) and len(callers) < len(one.stack):
            one.stack = StackSummary.from_list(one.stack[len(callers) :])


def without_callers(frames: TracebackType | None) -> TracebackType | None:
    """Return a traceback from the call of a user's function on; one of this library's own errors stays as it is."""
    rest = frames
    while rest is not None and _is_between(rest.tb_frame.f_code.co_filename):
        rest = rest.tb_next
    return frames if rest is None else rest


def _is_caller(frame: FrameSummary) -> bool:
    return _is_between(frame.filename)


def _is_between(filename: str) -> bool:
    return filename.startswith((*OWN, *BETWEEN)) or any(part in filename for part in ADAPTERS_OF_LOOPS)
