"""The settings of PostgreSQL that an acceptance needs, whatever the server, the database or the role has set."""

from __future__ import annotations

from typing import Final

__all__ = ["LOCK_TIMEOUT", "POSTGRES_LIMITS", "STATEMENT_TIMEOUT"]

LOCK_TIMEOUT: Final = 2.0
"""Seconds that an acceptance waits for a lock: less than a sender waits for the response."""

STATEMENT_TIMEOUT: Final = 2.5
"""Seconds that a statement of an acceptance may take: less than the answer budget."""

POSTGRES_LIMITS: Final = (
    f"SELECT set_config('lock_timeout', '{LOCK_TIMEOUT * 1000:.0f}', true), "
    f"set_config('statement_timeout', '{STATEMENT_TIMEOUT * 1000:.0f}', true), "
    "set_config('synchronous_commit', "
    # Every other value waits for the disk of this server at least; one may also wait for that of a standby.
    "CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, "
    "true)"
)
"""One query that sets all of them until the end of the transaction."""
