"""The loggers of this library: whatever text they are given, they write it redacted, and on a line of its own."""

from __future__ import annotations

import logging
import sys
from typing import Any

from envoyou_core.redaction import one_line
from envoyou_core.worker.failures import traceback_of

__all__ = ["RedactedLogger"]

INDENT = "  "


class RedactedLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose arguments and tracebacks are redacted before a record is made of them.

    A record never carries `exc_info`: formatters for JSON, structlog and Rich format it themselves, and would write the
    raw text of the exception. The redacted traceback is part of the message instead, each of its lines indented, so
    that none of them can pass for a record. The notices carry the exception itself.

    Args:
        name: of the logger.
    """

    def __init__(self, name: str) -> None:
        super().__init__(logging.root, {})
        self._name = name

    @property
    def logger(self) -> logging.Logger:
        """The logger of that name. `logging` may replace or disable loggers at any time, so it is not kept."""
        # Looked up at each use, never at import: `logging.config` disables the loggers that exist when it runs.
        return logging.getLogger(self._name)

    @logger.setter
    def logger(self, _: logging.Logger) -> None:
        pass

    def log(  # type: ignore[override]  # what else it takes is passed on
        self, level: int, msg: object, *args: object, exc_info: Any = None, traceback: str = "", **options: Any
    ) -> None:
        """Write a record.

        Args:
            level: as of `logging`.
            msg: a constant with placeholders. It must not contain text that comes from elsewhere.
            args: for the placeholders.
            exc_info: an exception, or true for the one that is being handled.
            traceback: the redacted traceback, if there is one that hides more than `traceback_of` knows to hide.
            options: those of `logging.Logger.log`.
        """
        if not self.isEnabledFor(level):
            return
        error = exc_info if isinstance(exc_info, BaseException) else sys.exception() if exc_info else None
        if error is not None and not traceback:
            traceback = traceback_of(error)
        clean = [_clean(argument) for argument in args]
        if traceback:
            msg = f"{msg}\n%s"
            clean.append("\n".join(INDENT + line for line in traceback.splitlines()))
        # The caller is the function that called `info` or `error`, which `logging` skips itself.
        self.logger.log(level, msg, *clean, **{"stacklevel": 2, **options})


def _clean(argument: object) -> object:
    return argument if argument is None or isinstance(argument, int | float) else one_line(str(argument))
