"""Shortens the traceback of a user's function: it begins where that function is called."""

from __future__ import annotations

import os
from itertools import takewhile
from pathlib import Path
from traceback import FrameSummary, StackSummary, TracebackException
from typing import Final

__all__ = ["leave_out_callers"]

OWN: Final = tuple(
    f"{Path(__file__).parents[2] / package}{os.sep}"
    for package in ("envoyou_core", "envoyou_django", "envoyou_fastapi", "envoyou_flask")
)
"""How the names of this library's files begin."""

BETWEEN: Final = tuple(
    str(Path(os.__file__).parent / part)
    for part in (f"asyncio{os.sep}", f"concurrent{os.sep}", "contextlib.py", "threading.py")
)
"""How the names of files begin whose functions may lie between this library and the user's function."""


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


def _is_caller(frame: FrameSummary) -> bool:
    return frame.filename.startswith((*OWN, *BETWEEN)) or f"{os.sep}asgiref{os.sep}" in frame.filename
