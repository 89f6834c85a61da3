"""Loggers of this project that `logging.config` has disabled by accident.

`dictConfig` and `fileConfig` disable every logger that exists and that they do not name, by default. Loggers are
therefore looked up at each use, and never at import. One that was used before is disabled all the same.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Final

__all__ = ["REMEDY", "disabled_loggers", "report_disabled_loggers"]

ROOT: Final = "envoyou"

REMEDY: Final = (
    'Write "disable_existing_loggers": False in the logging configuration; '
    "in Alembic's env.py, fileConfig(..., disable_existing_loggers=False)."
)


def disabled_loggers() -> list[str]:
    """The names of this project's loggers that exist and are disabled."""
    loggers = logging.root.manager.loggerDict.copy()
    return sorted(
        name
        for name, logger in loggers.items()
        if f"{name}.".startswith(f"{ROOT}.") and isinstance(logger, logging.Logger) and logger.disabled
    )


def report_disabled_loggers() -> None:
    """Write a line to standard error for each disabled logger: the log itself cannot say it."""
    for name in disabled_loggers():
        # Standard error may be missing or closed, which must not stop the work.
        with suppress(AttributeError, OSError, ValueError):
            sys.stderr.write(f"envoyou: the logger {name!r} is disabled, so nothing is logged there. {REMEDY}\n")
