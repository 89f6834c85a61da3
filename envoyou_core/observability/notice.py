"""The base class of the notices."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import ClassVar, Final

__all__ = ["Notice", "retry_text"]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that happened to a delivery, an event, a worker or a store.

    Each kind is a frozen dataclass that also defines its log record. The texts of a notice contain no secret, no
    signature and no body. An exception object may.

    Attributes:
        on_demand: whether this kind is made only for listeners that ask for it by name, because it is frequent.
    """

    on_demand: ClassVar[bool] = False

    @property
    def level(self) -> int:
        """The level of the log record, as in `logging`."""
        return logging.INFO

    @property
    def template(self) -> str:
        """The message of the log record: constant for a kind of notice, with the names of `arguments` to insert."""
        return type(self).__name__

    @property
    def outcome(self) -> str | None:
        """How it ended, in one word, if it is the end of something; metrics use the same words."""
        return None

    @property
    def event_status(self) -> str | None:
        """The state of the event afterwards, as far as the notice tells it."""
        return None

    def fields(self) -> Mapping[str, object]:
        """Return the data of the notice by name, without exceptions and tracebacks."""
        values = ((name, getattr(self, name)) for name in _names(type(self)))
        return {
            name: value.value if isinstance(value, Enum) else value
            for name, value in values
            if not isinstance(value, BaseException)
        }

    def arguments(self) -> Mapping[str, object]:
        """Return the values that `template` inserts. They are redacted when they are logged."""
        return self.fields()

    def failure(self) -> tuple[BaseException | None, str]:
        """Return the exception whose traceback is logged, and its redacted traceback if it is known."""
        return None, ""

    def error_texts(self) -> tuple[str, str] | None:
        """Return what failed in one line, and its redacted traceback or nothing; `None` if nothing failed."""
        detail = getattr(self, "detail", None)
        return None if detail is None else (detail, "")


_NAMES: Final[dict[type, tuple[str, ...]]] = {}


def _names(kind: type[Notice]) -> tuple[str, ...]:
    """Return the names of the fields. `fields` is slow, and several notices are made of each event."""
    if (names := _NAMES.get(kind)) is None:
        names = _NAMES[kind] = tuple(field.name for field in fields(kind) if field.name != "traceback")
    return names


def retry_text(seconds: float | None, *, otherwise: str) -> str:
    """Return when something is tried again, for a message; `otherwise` if the number of seconds is unknown."""
    return otherwise if seconds is None else f"in {seconds:g} s"
