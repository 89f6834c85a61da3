"""Finds loggers of this project that `logging.config` has disabled by accident.

By default, `dictConfig` and `fileConfig` disable every logger that exists and that they do not name. Therefore loggers
are looked up at each use, and never at import. A logger that was used before is disabled all the same.
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
"""How to keep a logging configuration from disabling the library's loggers."""


def disabled_loggers() -> list[str]:
    """Return the names of this project's loggers that are disabled."""
    loggers = logging.root.manager.loggerDict.copy()
    return sorted(
        name
        for name, logger in loggers.items()
        if f"{name}.".startswith(f"{ROOT}.") and isinstance(logger, logging.Logger) and logger.disabled
    )


def report_disabled_loggers() -> None:
    """Write a line to standard error for each disabled logger, because the log itself cannot report it."""
    for name in disabled_loggers():
        # Standard error may be missing or closed, which must not stop the worker.
        with suppress(AttributeError, OSError, ValueError):
            sys.stderr.write(f"envoyou: the logger {name!r} is disabled, so its records are lost. {REMEDY}\n")
