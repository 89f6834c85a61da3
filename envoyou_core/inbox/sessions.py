"""What a handler may change in the session of its connection to PostgreSQL, such as the search path or the role.

The server reports no such change to the client, and reading all settings takes as long as a short handler. So one
expression reads those that decide what the statements of the inbox and of the next handler do.
"""

from __future__ import annotations

import json
from typing import Final

from envoyou_core.errors import SessionStateError

__all__ = ["SESSION_STATE", "describe_changes", "unseen_event"]

WATCHED: Final = (
    "search_path",
    "role",
    "session_authorization",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "session_replication_role",
    "row_security",
    "TimeZone",
)

_VALUES: Final = ", ".join(f"current_setting('{name}')" for name in WATCHED)
SESSION_STATE: Final = f"json_build_array({_VALUES})::text"
"""An SQL expression: the values of the settings, as JSON text."""


def describe_changes(before: str, after: str) -> str:
    """Name the settings that differ between two values of `SESSION_STATE`, with both values."""
    differences = [
        f"{name} is {new!r} instead of {old!r}"
        for name, old, new in zip(WATCHED, json.loads(before), json.loads(after), strict=True)
        if old != new
    ]
    return ", ".join(differences)


def unseen_event(table: str, changes: str = "") -> SessionStateError:
    """Return the error of a handler whose connection does not find its event's row, although the lease is held.

    Args:
        table: the name of the table of events.
        changes: the settings that the handler has changed, as far as they are known.
    """
    return SessionStateError(
        f"the handler's connection does not find its event in the table {table}, because the handler has changed the "
        f"session{f' ({changes})' if changes else ''}. Restore it before the handler returns, or register the handler "
        "with on(..., atomic=False)"
    )
