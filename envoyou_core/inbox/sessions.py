"""What a handler may change in the session of its connection to PostgreSQL, such as the search path or the role.

The server reports no such change to the client, reading all settings takes as long as a short handler, and custom ones
such as `app.tenant` are in no list of the server. So one expression always reads the settings that decide what the
statements of the inbox and of the next handler do. Others are read once a handler's statement has named them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Final

from envoyou_core.errors import SessionStateError
from envoyou_core.forks import ForkSafeLock

__all__ = [
    "SESSION_STATE",
    "describe_changes",
    "named_differ",
    "named_state",
    "note_statement",
    "unseen_event",
]

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

MAX_NAME: Final = 64
MAX_NAMED: Final = 50
"""How many settings that handlers have named are remembered."""

_COMMAND: Final = re.compile(
    r"(?:^|;|\*/)\s*(?:discard\b|(?:set|reset)\s+(?:session\s+)?(?!(?:local|transaction|constraints)\b)\"?([a-z_][\w$.]*))"
)
_FUNCTION: Final = re.compile(r"set_config\s*\(\s*(?:'([^']*)')?")
_NAME: Final = re.compile(r"[a-z_][\w$]*(?:\.[a-z_][\w$]*)*", re.ASCII)
_UNNAMED: Final = {"names": "client_encoding", "characteristics": "default_transaction_deferrable"}
"""Settings by the word that stands for them in a command."""

_named: tuple[str, ...] = ()
_lock = ForkSafeLock()


def note_statement(statement: object, parameters: object = None) -> bool:
    """Whether a statement may change settings beyond its transaction. The settings that it names are remembered.

    A function of the database that changes settings is not recognised.

    Args:
        statement: the statement as the driver gets it: text, bytes, or an object of `psycopg.sql`.
        parameters: its parameters, which may be arguments of `set_config`.
    """
    if isinstance(statement, bytes):
        statement = statement.decode(errors="replace")
    elif not isinstance(statement, str):
        compose = getattr(statement, "as_string", None)
        statement = "" if compose is None else compose(None)
    text = str(statement).lower()
    # Nearly all statements end here.
    if not (text.lstrip().startswith(("set", "reset", "discard", "/*")) or ";" in text or "set_config" in text):
        return False
    # `RESET ALL` and `DISCARD` change settings that they do not name.
    names = [_UNNAMED.get(name, name) for name in _COMMAND.findall(text)]
    if calls := _FUNCTION.findall(text):
        values = _values(parameters)
        if not _is_local(text, values):
            names += calls
            # A name is among the parameters only if a call has none of its own. Values are not, such as ids of tenants.
            if "" in calls:
                names += [value.lower() for value in values if isinstance(value, str)]
    _remember(name for name in names if len(name) < MAX_NAME and _NAME.fullmatch(name))
    return bool(names)


def _values(parameters: object) -> list[object]:
    if isinstance(parameters, Mapping):
        return list(parameters.values())
    return list(parameters) if isinstance(parameters, list | tuple) else []


def _is_local(text: str, parameters: list[object]) -> bool:
    """Whether all calls of `set_config` in a statement end with its transaction, as far as that can be seen."""
    is_true = re.search(r"\btrue\b", text) is not None or any(value is True for value in parameters)
    is_false = re.search(r"\bfalse\b", text) is not None or any(value is False for value in parameters)
    return is_true and not is_false


def _remember(names: Iterable[str]) -> None:
    global _named
    with _lock:
        # Appended: the values of fewer names, which were read earlier, are compared by position.
        _named = tuple(dict.fromkeys((*_named, *names)))[:MAX_NAMED]


def named_state() -> str:
    """Return an SQL expression: the values of the settings that handlers have named, as JSON text."""
    values = ", ".join(f"current_setting('{name}', true)" for name in _named)
    return f"json_build_array({values})::text"


def named_differ(before: str, after: str) -> bool:
    """Whether a setting differs between two values of `named_state`. One that had no name then was not set."""
    pairs = zip_longest(json.loads(before), json.loads(after))
    # A custom setting that was set in a transaction is empty afterwards.
    return any((old or "") != (new or "") for old, new in pairs)


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
