"""The loggers of this library. They redact everything that they write, and keep each record apart from its text."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from envoyou_core.redaction import one_line

__all__ = ["MAX_QUOTED", "CleanText", "Quoted", "RedactedLogger"]

INDENT: Final = "  "

MAX_QUOTED: Final = 200
"""Characters of a quoted text that are logged."""


class CleanText(str):
    """A text of ours, or one that is redacted already: it is logged as it is, lines included."""

    __slots__ = ()


class Quoted(msgspec.Struct, frozen=True):
    """An argument that a sender wrote: it is cut and logged in quotes, so that it cannot pass for another argument."""

    text: str


class RedactedLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger that redacts arguments, tracebacks and `extra` before it makes a record of them.

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
        """The logger of that name. It is not kept, because `logging` may replace or disable loggers at any time."""
        # Looked up at each use, never at import: `logging.config` disables the loggers that exist when it runs.
        found = logging.root.manager.loggerDict.get(self._name)
        # `getLogger` takes a lock, and most records are written by no handler.
        return found if isinstance(found, logging.Logger) else logging.getLogger(self._name)

    @logger.setter
    def logger(self, _: logging.Logger) -> None:
        pass

    def log(  # type: ignore[override]  # other options are passed on
        self,
        level: int,
        msg: object,
        *args: object,
        exc_info: Any = None,
        traceback: str = "",
        extra: Mapping[str, object] | None = None,
        **options: Any,
    ) -> None:
        """Write a record.

        Args:
            level: as in `logging`.
            msg: a constant with placeholders. It must not contain text from elsewhere.
            args: for the placeholders; or one mapping, if the placeholders have names.
            exc_info: an exception, or true for the one that is being handled.
            traceback: a redacted traceback, if there is one that hides more than `traceback_of` can.
            extra: attributes of the record, each a value or a mapping of values.
            options: those of `logging.Logger.log`.
        """
        if not self.isEnabledFor(level):
            return
        error = exc_info if isinstance(exc_info, BaseException) else sys.exception() if exc_info else None
        if error is not None and not traceback:
            from envoyou_core.worker.failures import traceback_of

            traceback = traceback_of(error)
        if traceback:
            traceback = "\n".join(INDENT + line for line in traceback.splitlines())
        clean: tuple[object, ...]
        # Most texts of `extra` are arguments as well.
        known: dict[str, str] = {}
        if len(args) == 1 and isinstance(args[0], Mapping):
            clean = ({**_clean_values(args[0], known), "traceback": traceback},)
            msg = f"{msg}\n%(traceback)s" if traceback else msg
        else:
            clean = (*(_clean(value, known) for value in args), *([traceback] if traceback else []))
            msg = f"{msg}\n%s" if traceback else msg
        attributes = {
            name: _clean_values(data, known) if isinstance(data, Mapping) else _clean(data, known)
            for name, data in (extra or {}).items()
        }
        # `stacklevel` skips this method; `logging` itself skips `info`, `error` and the like.
        self.logger.log(level, msg, *clean, **{"stacklevel": 2, "extra": attributes, **options})


_AS_THEY_ARE: Final = frozenset({type(None), int, float, bool, CleanText})


def _clean_values(data: Mapping[str, object], known: dict[str, str]) -> dict[str, object]:
    return {name: _clean(value, known) for name, value in data.items()}


def _clean(value: object, known: dict[str, str]) -> object:
    # By type: with a dozen values in each record, `isinstance` is a large part of the time.
    kind = type(value)
    if kind in _AS_THEY_ARE or isinstance(value, int | float):
        return value
    if kind is Quoted and isinstance(value, Quoted):
        return repr(one_line(value.text[:MAX_QUOTED]))
    text = value if isinstance(value, str) else str(value)
    if (clean := known.get(text)) is None:
        known[text] = clean = one_line(text)
    return clean
