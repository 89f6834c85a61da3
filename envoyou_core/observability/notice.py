"""The base class of the notices."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum

__all__ = ["Notice", "retry_text"]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that happened to a delivery, an event, a worker or a store.

    Each kind is a frozen dataclass that also defines its log record. The texts of a notice contain no secret, no
    signature and no body. An exception object may.
    """

    @property
    def level(self) -> int:
        """The level of the log record, as in `logging`."""
        return logging.INFO

    @property
    def template(self) -> str:
        """The message of the log record: constant for a kind of notice, with the names of `arguments` to insert."""
        return type(self).__name__

    def fields(self) -> Mapping[str, object]:
        """Return the data of the notice by name, without exceptions and tracebacks."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self) if field.name != "traceback")
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


def retry_text(seconds: float | None, *, otherwise: str) -> str:
    """Return when something is tried again, for a message; `otherwise` if the number of seconds is unknown."""
    return otherwise if seconds is None else f"in {seconds:g} s"
