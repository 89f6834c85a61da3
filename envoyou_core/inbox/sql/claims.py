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

from envoyou_core.inbox.records import Claim, ClaimFilter, Status
from envoyou_core.inbox.sql.schema import inbox_table

__all__ = ["IS_HELD", "NOW", "due", "lease_of"]

_t = inbox_table.c

IS_HELD: ColumnElement[bool] = and_(_t.key == bindparam("held_key"), _t.lease_token == bindparam("held_token"))
"""The condition that a claim still holds its lease; `lease_of` gives its parameters."""


def lease_of(claim: Claim) -> dict[str, Any]:
    """Return the parameters of `IS_HELD`."""
    return {"held_key": claim.key, "held_token": claim.token}


NOW: BindParameter[int] = bindparam("now", type_=BigInteger())
"""The time of a claim, in microseconds."""


# Cached, because building the statement takes longer than executing it.
@lru_cache(maxsize=256)
def due(name: str, claim_filter: ClaimFilter) -> Select[tuple[int]]:
    """Select the keys of the first `limit` events of the inbox `name` that may be claimed at `NOW`."""
    conditions = [_t.name == name, _t.due_at.is_not(None), _t.due_at <= NOW]
    if claim_filter.include is not None:
        conditions.append(_is_of(_t.type, claim_filter.include))
    if claim_filter.exclude:
        conditions.append(not_(_is_of(_t.type, claim_filter.exclude)))
    if claim_filter.ordered:
        # An event whose object is unknown yet waits, because the events that it depends on are unknown.
        known = and_(_t.object_key.is_not(None), not_(_is_held_back(claim_filter.ordered)))
        conditions.append(or_(not_(_is_of(_t.type, claim_filter.ordered)), _t.object_key == "", known))
    first = select(_t.key).where(*conditions).order_by(_t.due_at, _t.key)
    return first.limit(bindparam("limit", type_=Integer()))


def _is_held_back(ordered: Iterable[str]) -> ColumnElement[bool]:
    other = inbox_table.alias("other")
    o = other.c
    earlier = or_(o.created < _t.created, and_(o.created == _t.created, o.key < _t.key))
    # The rule of `transitions.next_in_order`. An expired lease does not count, because two such events would wait for
    # each other.
    in_work = and_(o.status == Status.PROCESSING.value, o.due_at > NOW)
    return (
        select(o.key)
        .where(
            o.name == _t.name,
            o.object_key == _t.object_key,
            o.tenant == _t.tenant,
            o.due_at.is_not(None),
            _is_of(o.type, ordered),
            or_(earlier, in_work),
        )
        .correlate(inbox_table)
        .exists()
    )


def _is_of(type_: ColumnElement[str], patterns: Iterable[str]) -> ColumnElement[bool]:
    """Compared by bytes. `LIKE` folds cases in some databases, and takes an underscore for any character."""
    if "*" in patterns:
        return true()
    exact = [pattern for pattern in patterns if not pattern.endswith("*")]
    stems = [pattern[:-1] for pattern in patterns if pattern.endswith("*")]
    conditions = [func.substr(type_, 1, len(stem)) == stem for stem in stems]
    return or_(false(), type_.in_(exact) if exact else false(), *conditions)
