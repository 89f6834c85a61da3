"""The tokens of leases. A token proves that a claim still holds its event, and shows which process holds it."""

from __future__ import annotations

import secrets
import uuid
from typing import Final

__all__ = ["HOLDER_LENGTH", "lease_holder", "new_lease_token"]

HOLDER_LENGTH: Final = 12
"""How many characters of a token, and of a process's id, name the process: 48 random bits."""


def new_lease_token(process_id: str | None) -> str:
    """Return a new token of 32 characters for a lease of a process; `None` if the process is not listed."""
    if process_id is None:
        return uuid.uuid4().hex
    return lease_holder(process_id) + secrets.token_hex((32 - HOLDER_LENGTH) // 2)


def lease_holder(text: str) -> str:
    """Return what a token and the id of the process that holds the lease have in common."""
    return text[:HOLDER_LENGTH]
