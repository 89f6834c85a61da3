"""SQL conditions: which events may be claimed, and whether a claim still holds its lease."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Integer,
    Select,
    and_,
    bindparam,
    false,
    func,
    not_,
    or_,
    select,
    true,
)

from envoyou_core.inbox import transitions
from envoyou_core.inbox.handler_sets import HandlerSet
from envoyou_core.inbox.owed import awaited_handlers
from envoyou_core.inbox.records import Claim, ClaimFilter, Status
from envoyou_core.inbox.sql.schema import inbox_table

__all__ = ["IS_HELD", "IS_WAITING", "NOW", "due", "lease_of", "matches_type", "waiting_for"]

_t = inbox_table.c

IS_HELD: ColumnElement[bool] = and_(_t.key == bindparam("held_key"), _t.lease_token == bindparam("held_token"))
"""The condition that a claim still holds its lease; `lease_of` gives its parameters."""


def lease_of(claim: Claim) -> dict[str, Any]:
    """Return the parameters of `IS_HELD`."""
    return {"held_key": claim.key, "held_token": claim.token}


IS_WAITING: ColumnElement[bool] = and_(
    _t.waits_for.is_not(None),
    # Not by `due_at`, with which the index for claims would look as good as the smaller one for this.
    _t.status.in_(sorted(transitions.WAITING)),
)
"""The condition of `transitions.is_waiting`."""

NOW: BindParameter[int] = bindparam("now", type_=BigInteger())
"""The time of a claim, in microseconds."""


# Cached, because building the statement takes longer than executing it.
@lru_cache(maxsize=256)
def due(name: str, claim_filter: ClaimFilter) -> Select[tuple[int]]:
    """Select the keys of the first `limit` events of the inbox `name` that may be claimed at `NOW`."""
    if claim_filter.waiting:
        conditions = [waiting_for(name, claim_filter.handlers)]
    else:
        conditions = [_t.name == name, _t.due_at.is_not(None), _t.due_at <= NOW]
    if claim_filter.include is not None:
        conditions.append(matches_type(_t.type, claim_filter.include))
    if claim_filter.exclude:
        conditions.append(not_(matches_type(_t.type, claim_filter.exclude)))
    if claim_filter.ordered:
        # An event whose object is unknown yet waits, because the events that it depends on are unknown.
        known = and_(_t.object_key.is_not(None), not_(_is_held_back(claim_filter.ordered, claim_filter.handlers)))
        conditions.append(or_(not_(matches_type(_t.type, claim_filter.ordered)), _t.object_key == "", known))
    first = select(_t.key).where(*conditions).order_by(_t.due_at, _t.key)
    return first.limit(bindparam("limit", type_=Integer()))


def waiting_for(name: str, handlers: HandlerSet | None) -> ColumnElement[bool]:
    """The condition of the events of the inbox `name` that wait for one of `handlers`."""
    keys = [] if handlers is None else [key for key, _ in awaited_handlers(handlers)]
    return and_(_t.name == name, _t.waits_for.in_(keys), _is_awaited(_t, handlers), IS_WAITING)


def _is_awaited(row: Any, handlers: HandlerSet | None) -> ColumnElement[bool]:
    """The condition of `transitions.is_awaited`."""
    awaited = [] if handlers is None else awaited_handlers(handlers)
    return or_(false(), *(and_(row.waits_for == key, matches_type(row.type, patterns)) for key, patterns in awaited))


def _is_held_back(ordered: Iterable[str], handlers: HandlerSet | None) -> ColumnElement[bool]:
    other = inbox_table.alias("other")
    o = other.c
    earlier = or_(o.created < _t.created, and_(o.created == _t.created, o.key < _t.key))
    # The rule of `transitions.next_in_order`. An expired lease does not count, because two such events would wait for
    # each other.
    in_work = and_(o.status == Status.PROCESSING.value, o.due_at > NOW)
    in_line = or_(o.waits_for.is_(None), o.due_at <= NOW, _is_awaited(o, handlers))
    return (
        select(o.key)
        .where(
            o.name == _t.name,
            o.object_key == _t.object_key,
            o.tenant == _t.tenant,
            o.due_at.is_not(None),
            matches_type(o.type, ordered),
            or_(and_(earlier, in_line), in_work),
        )
        .correlate(inbox_table)
        .exists()
    )


def matches_type(type_: ColumnElement[str], patterns: Iterable[str]) -> ColumnElement[bool]:
    """Build the condition that a type matches one of `patterns`, compared by bytes.

    `LIKE` folds cases in some databases, and takes an underscore for any character.
    """
    if "*" in patterns:
        return true()
    exact = [pattern for pattern in patterns if not pattern.endswith("*")]
    stems = [pattern[:-1] for pattern in patterns if pattern.endswith("*")]
    conditions = [func.substr(type_, 1, len(stem)) == stem for stem in stems]
    return or_(false(), type_.in_(exact) if exact else false(), *conditions)
