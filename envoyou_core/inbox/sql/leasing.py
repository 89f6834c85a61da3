"""SQL that leases due events and extends their leases."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, Row, String, and_, bindparam, case, func, select, text, update
from sqlalchemy.sql.dml import ReturningUpdate

from envoyou_core.inbox import transitions
from envoyou_core.inbox.handler_sets import HandlerSet
from envoyou_core.inbox.lease_tokens import HOLDER_LENGTH, lease_holder, new_lease_token
from envoyou_core.inbox.records import Claim, ClaimFilter
from envoyou_core.inbox.rows import claim_of, instant, moment
from envoyou_core.inbox.sql.claims import IS_HELD, IS_WAITING, due, lease_of
from envoyou_core.inbox.sql.columns import encode
from envoyou_core.inbox.sql.engines import dialect_of
from envoyou_core.inbox.sql.registry import read_sets
from envoyou_core.inbox.sql.schema import inbox_table, schema_table

__all__ = ["end_leases", "extend_leases", "lease_due", "lease_holders", "lock_claims", "renew", "uncount_crash"]

_t = inbox_table.c
_IS_TAKEOVER = _t.status == transitions.LEASED.value
_TAKEOVER, _FRESH = bindparam("takeover", type_=String()), bindparam("fresh", type_=String())
_LEASED: list[tuple[Any, Any]] = [
    # A column comes after those that read it: MariaDB applies the assignments one after the other.
    (_t.crashes, _t.crashes + case((_IS_TAKEOVER, 1), else_=0)),
    (_t.lease_token, case((_IS_TAKEOVER, _TAKEOVER), else_=_FRESH)),
    (_t.previous_set, _t.claimed_set),
    (_t.claimed_set, bindparam("new_claimed_set", type_=String())),
    (_t.status, bindparam("new_status")),
    (_t.due_at, bindparam("new_due_at")),
]
_READ = [
    _t[column]
    for column in (
        "key",
        "tenant",
        "event_id",
        "type",
        "created",
        "webhook_id",
        "body",
        "attempts",
        "crashes",
        "progress",
        "received_at",
        "lease_token",
        "last_error",
        "history",
        "accepted_set",
        "previous_set",
        "owed",
        "waits_for",
        "waits_since",
        "headers",
        "traceparent",
    )
]
"""What a claim reads of a row. Each column costs time."""

_HOLDER = func.substr(_t.lease_token, 1, HOLDER_LENGTH, type_=String())
_RENEW = update(inbox_table).where(IS_HELD).values(due_at=bindparam("new_due_at"))


def lease_due(
    connection: Connection, name: str, limit: int, lease: float, claim_filter: ClaimFilter, now: datetime
) -> list[Claim]:
    """Lease due events.

    Args:
        connection: a connection with a transaction in progress.
        name: the name of the inbox.
        limit: the maximum number of events.
        lease: seconds for which they are leased.
        claim_filter: selects the events that may be leased.
        now: the time of the claim.
    """
    # Two tokens, so that the returned rows show which leases had expired.
    fresh, takeover = new_lease_token(claim_filter.process_id), new_lease_token(claim_filter.process_id)
    changes = encode(transitions.lease(fresh, lease, now) | transitions.claimed_by(claim_filter.handlers))
    rows = _lease(
        connection,
        name,
        claim_filter,
        {"now": instant(now), "limit": limit},
        {
            **{f"new_{column}": changes[column] for column in ("status", "due_at", "claimed_set")},
            "fresh": fresh,
            "takeover": takeover,
        },
    )
    in_order = sorted(rows, key=lambda row: row.key)
    crashed = {row.previous_set for row in in_order if row.lease_token == takeover and row.previous_set is not None}
    sets = read_sets(connection, name, crashed) if crashed else {}
    claims = []
    for row in in_order:
        claim = claim_of(row, key=row.key, token=row.lease_token, moment=moment)
        is_takeover = claim.token == takeover
        claims.append(_record_crash(connection, claim, sets.get(row.previous_set), now) if is_takeover else claim)
    return claims


def _record_crash(connection: Connection, claim: Claim, crashed: HandlerSet | None, now: datetime) -> Claim:
    changes = transitions.count_crash(claim, crashed, now)
    # The lease has counted the crash already, in the same statement for all rows.
    del changes["crashes"]
    connection.execute(update(inbox_table).where(_t.key == claim.key).values(**encode(changes)))
    return replace(claim, **changes)


def _lease(
    connection: Connection, name: str, claim_filter: ClaimFilter, query: dict[str, int], changes: dict[str, Any]
) -> Sequence[Row[Any]]:
    if dialect_of(connection) != "mariadb":
        return connection.execute(_claim(name, claim_filter), {**query, **changes}).all()
    # The first query does not lock. A locking read sees what others commit meanwhile, but a condition within it does
    # not, so that it would claim an event that a newly committed one holds back.
    candidates = connection.scalars(due(name, claim_filter), query).all()
    is_unchanged = IS_WAITING if claim_filter.waiting else _t.due_at <= query["now"]
    unchanged = select(_t.key).where(_t.key.in_(candidates), is_unchanged)
    keys = connection.scalars(unchanged.with_for_update(skip_locked=True)).all() if candidates else []
    if not keys:
        return []
    connection.execute(update(inbox_table).where(_t.key.in_(keys)).ordered_values(*_LEASED), changes)
    return connection.execute(select(*_READ).where(_t.key.in_(keys))).all()


@lru_cache(maxsize=256)
def _claim(name: str, claim_filter: ClaimFilter) -> ReturningUpdate[Any]:
    # MATERIALIZED, because under some plans PostgreSQL would otherwise evaluate the limited query again for every row
    # that it updates, and claim more than the limit. SQLite has one writer at a time and needs no row locks.
    picked = due(name, claim_filter).with_for_update(skip_locked=True).cte("due").prefix_with("MATERIALIZED")
    return update(inbox_table).where(_t.key.in_(select(picked.c.key))).values(dict(_LEASED)).returning(*_READ)


def lock_claims(connection: Connection, name: str) -> None:
    """Let no other claim on the inbox run until the transaction ends.

    Two claims at the same time would not see each other's leases, and could take two events of one object.
    """
    dialect = dialect_of(connection)
    if dialect == "postgresql":
        lock = text("SELECT pg_advisory_xact_lock(hashtext('envoyou_claim'), hashtext(:name))")
        connection.execute(lock, {"name": name})
    if dialect == "mariadb":
        connection.execute(select(schema_table).with_for_update())


def renew(connection: Connection, claims: Sequence[Claim], lease: float, now: datetime) -> None:
    """Extend the leases that are still held.

    Args:
        connection: a connection with a transaction in progress.
        claims: the claims to renew.
        lease: seconds from `now` until the new leases expire.
        now: the time of the renewal.
    """
    renewals = [
        {**lease_of(claim), "new_due_at": instant(transitions.lease(claim.token, lease, now)["due_at"])}
        # In the order in which attempts are settled. Opposite orders could deadlock.
        for claim in sorted(claims, key=lambda claim: claim.key)
    ]
    connection.execute(_RENEW, renewals)


def lease_holders(connection: Connection, name: str, now: datetime) -> list[str]:
    """Return the beginnings of the tokens of all leases that have not expired."""
    holders = select(_HOLDER).where(_is_leased(connection, name, now)).distinct()
    return list(connection.scalars(holders))


def end_leases(connection: Connection, name: str, process_ids: Collection[str], now: datetime) -> int:
    """End the leases that processes hold; returns how many.

    Args:
        connection: a connection with a transaction in progress.
        name: the name of the inbox.
        process_ids: the processes, which are gone.
        now: when the leases end.
    """
    held = _HOLDER.in_(sorted(map(lease_holder, process_ids)))
    ended = encode(transitions.end_lease(now))
    return connection.execute(update(inbox_table).where(_is_leased(connection, name, now), held).values(ended)).rowcount


def extend_leases(connection: Connection, name: str, seconds: float, now: datetime) -> int:
    """Let the leases that have expired expire later; returns how many.

    Args:
        connection: a connection with a transaction in progress.
        name: the name of the inbox.
        seconds: how long after `now` they expire.
        now: the time of the extension.
    """
    extended = encode(transitions.extend_lease(seconds, now))
    expired = and_(_t.name == name, _IS_TAKEOVER, _t.due_at <= instant(now))
    return connection.execute(update(inbox_table).where(expired).values(extended)).rowcount


def uncount_crash(connection: Connection, claim: Claim) -> bool:
    """Take back a crash that was counted since `claim`; returns whether there was one."""
    # The rule of `transitions.uncount_crash`.
    counted = and_(_t.key == claim.key, _t.crashes > claim.crashes)
    return connection.execute(update(inbox_table).where(counted).values(crashes=_t.crashes - 1)).rowcount == 1


def _is_leased(connection: Connection, name: str, now: datetime) -> ColumnElement[bool]:
    # So that the index on the status is used: few rows have this one, which SQLite's statistics do not show. By
    # `due_at`, all events that wait for a retry would be read.
    has_status = func.unlikely(_IS_TAKEOVER) if dialect_of(connection) == "sqlite" else _IS_TAKEOVER
    return and_(_t.name == name, has_status, func.coalesce(_t.due_at, 0) > instant(now))
