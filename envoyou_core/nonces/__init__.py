"""Nonces seen lately: a second line of defence against replays, behind the inbox's unique key.

See the guide, "Recommended Validation Steps".
"""

from __future__ import annotations

import hashlib
from typing import Final, Protocol, runtime_checkable

__all__ = ["NONCE_LIFETIME", "NonceStore", "nonce_key"]

NONCE_LIFETIME: Final = 600.0
"""Seconds that a nonce stays bound to its event: the guide's ten minutes."""


@runtime_checkable
class NonceStore(Protocol):
    """Remembers for a while which event a nonce came with. Safe to call from any thread.

    `blocking` says whether a call waits for something outside the process, and must be kept off an event loop.
    """

    blocking: bool

    def lookup(self, key: str) -> str | None:
        """The id of the event that `key` is bound to."""

    def bind(self, key: str, event_id: str, lifetime: float) -> None:
        """Bind `key` for `lifetime` seconds, where it is not bound yet."""


def nonce_key(name: str, tenant: str, nonce: bytes) -> str:
    """A key of fixed length for a nonce of any: a sender cannot fill the store with one header."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (name.encode(), tenant.encode(), nonce):
        digest.update(len(part).to_bytes(4, "big") + part)
    return digest.hexdigest()
