"""SQL that records the progress of attempts and ends them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, update

from envoyou_core.inbox import transitions
from envoyou_core.inbox.records import Claim, HandlerStatus, Settlement, is_applied
from envoyou_core.inbox.sql import cleanup
from envoyou_core.inbox.sql.claims import IS_HELD, lease_of
from envoyou_core.inbox.sql.columns import encode
from envoyou_core.inbox.sql.schema import inbox_table
from envoyou_core.inbox.sql.sessions import STATE
from envoyou_core.inbox.transitions import Changes

__all__ = ["record", "record_and_read_session", "settle", "settle_and_read_session", "settle_together"]

_t = inbox_table.c
_RECORD = (
    update(inbox_table).where(IS_HELD).values(progress=bindparam("new_progress"), applied=bindparam("new_applied"))
)
_SETTLED = ("status", "attempts", "due_at", "lease_token", "settled_at", "last_error", "history")
_PROGRESS = ("progress", "applied")
_OWED = ("owed", "waits_for", "waits_since")
_PARAMETERS = {column: f"new_{column}" for column in (*_SETTLED, *_PROGRESS)}
_SETTLE = (
    update(inbox_table)
    .where(IS_HELD)
    .values(
        {column: bindparam(f"new_{column}") for column in _SETTLED}
        # NULL stands for no change.
        | {column: func.coalesce(bindparam(f"new_{column}", type_=_t[column].type), _t[column]) for column in _PROGRESS}
    )
)
# Hardly any settlement changes these columns, and each column costs time.
_OWE = update(inbox_table).where(_t.key == bindparam("row_key"))
_SETTLE_UNLESS_TO_ERASE = _SETTLE.where(_t.to_erase.is_(None))
# On PostgreSQL a handler's transaction reads the session's state in the statement that ends it.
_RECORD_AND_READ_SESSION = _RECORD.returning(STATE)
_SETTLE_AND_READ_SESSION = _SETTLE_UNLESS_TO_ERASE.returning(STATE)


def record(connection: Connection, claim: Claim, progress: Mapping[str, HandlerStatus]) -> bool:
    """Store the progress of an attempt; returns false if the lease was lost."""
    return connection.execute(_RECORD, _progress(claim, progress)).rowcount == 1


def settle(connection: Connection, claim: Claim, settlement: Settlement, now: datetime) -> bool:
    """End an attempt; returns false, without a change, if the lease was lost."""
    if settle_together(connection, [(claim, settlement)], now):
        return True
    return _settle_and_erase(connection, claim, settlement, now)


def record_and_read_session(connection: Connection, claim: Claim, progress: Mapping[str, HandlerStatus]) -> str | None:
    """Store the progress of an attempt; returns the session's state on PostgreSQL, `None` if the lease was lost."""
    state: str | None = connection.scalar(_RECORD_AND_READ_SESSION, _progress(claim, progress))
    return state


def settle_and_read_session(connection: Connection, claim: Claim, settlement: Settlement, now: datetime) -> str | None:
    """End an attempt; returns the session's state on PostgreSQL, `None` if the lease was lost."""
    changes = transitions.settle(claim, settlement, now)
    state: str | None = connection.scalar(_SETTLE_AND_READ_SESSION, _parameters(claim, changes))
    if state is None:
        held = _settle_and_erase(connection, claim, settlement, now)
        return connection.scalar(select(STATE)) if held else None
    _owe(connection, [(claim, changes)])
    if transitions.deletes_payload(settlement, erase_requested=False):
        cleanup.scrub(connection, _t.key == claim.key, now)
    return state


def _settle_and_erase(connection: Connection, claim: Claim, settlement: Settlement, now: datetime) -> bool:
    changes = transitions.settle(claim, settlement, now)
    held = connection.execute(_SETTLE, _parameters(claim, changes)).rowcount == 1
    if held:
        _owe(connection, [(claim, changes)])
    if held and transitions.deletes_payload(settlement, erase_requested=True):
        cleanup.scrub(connection, _t.key == claim.key, now)
    return held


def settle_together(connection: Connection, settlements: Sequence[tuple[Claim, Settlement]], now: datetime) -> bool:
    """End several attempts in one statement.

    Returns:
        False if a lease was lost or an event is to be erased. In that case the attempts must be settled one by one, in
        another transaction unless there is only one.
    """
    # In the order in which leases are renewed. Opposite orders could deadlock.
    in_order = sorted(settlements, key=lambda pair: pair[0].key)
    changed = [(claim, transitions.settle(claim, settlement, now)) for claim, settlement in in_order]
    parameters = [_parameters(claim, changes) for claim, changes in changed]
    if connection.execute(_SETTLE_UNLESS_TO_ERASE, parameters).rowcount < len(settlements):
        return False
    _owe(connection, changed)
    to_scrub = [
        claim.key for claim, settlement in settlements if transitions.deletes_payload(settlement, erase_requested=False)
    ]
    if to_scrub:
        cleanup.scrub(connection, _t.key.in_(to_scrub), now)
    return True


def _owe(connection: Connection, settled: Sequence[tuple[Claim, Changes]]) -> None:
    """Store what settled events owe and wait for, where that changes. Their rows are locked by the settlement."""
    for claim, changes in settled:
        if owed := {column: changes[column] for column in _OWED if column in changes}:
            connection.execute(_OWE.values(**encode(owed)), {"row_key": claim.key})


def _progress(claim: Claim, progress: Mapping[str, HandlerStatus]) -> dict[str, Any]:
    changes = encode({"progress": progress})
    return {**lease_of(claim), "new_progress": changes["progress"], "new_applied": int(is_applied(progress))}


def _parameters(claim: Claim, changes: Changes) -> dict[str, Any]:
    values = encode(changes)
    values["applied"] = int(is_applied(changes["progress"])) if "progress" in changes else None
    parameters = lease_of(claim)
    for column, parameter in _PARAMETERS.items():
        parameters[parameter] = values.get(column)
    return parameters
