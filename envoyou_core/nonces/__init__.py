"""Recently seen nonces: a second line of defence against replays, behind the inbox's unique key.

See the guide, "Recommended Validation Steps".
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final, Protocol, runtime_checkable

from envoyou_core.errors import ConfigurationError

__all__ = ["NONCE_LIFETIME", "NonceStore", "nonce_key", "open_nonces"]

NONCE_LIFETIME: Final = 600.0
"""Seconds for which a nonce stays bound to its event: the guide's ten minutes."""

MAX_TENANTS: Final = 1_024
"""The number of tenants for which the beginning of their keys is kept."""


@runtime_checkable
class NonceStore(Protocol):
    """Remembers which event each recent nonce belongs to. Safe to call from any thread.

    Attributes:
        blocking: whether a call may wait for something outside the process, and so must not run on an event loop.
    """

    blocking: bool

    def lookup(self, key: str) -> str | None:
        """The id of the event that `key` is bound to, or `None`."""

    def bind(self, key: str, event_id: str, lifetime: float) -> None:
        """Bind `key` to an event for `lifetime` seconds, unless it is bound already."""


def open_nonces(url: str) -> NonceStore:
    """Open the store at `url`. It connects on first use.

    Args:
        url: `redis://...`, shared by all processes, or `memory:`, one store for each process.

    Raises:
        ConfigurationError: the URL is neither, or redis-py is not installed.
    """
    if url.rstrip("/") == "memory:":
        from envoyou_core.nonces.memory import MemoryNonceStore

        return MemoryNonceStore()
    try:
        from envoyou_core.nonces.redis import RedisNonceStore
    except ImportError as error:
        raise ConfigurationError("nonces in Redis need redis-py: pip install 'envoyou-webhooks[redis]'") from error
    return RedisNonceStore(url)


def nonce_key(name: str, tenant: str, nonce: bytes) -> str:
    """A key of fixed length, so that a sender cannot fill the store with long nonces."""
    digest = _digest_of(name, tenant).copy()
    digest.update(len(nonce).to_bytes(4, "big") + nonce)
    return digest.hexdigest()


@lru_cache(MAX_TENANTS)
def _digest_of(name: str, tenant: str) -> hashlib.blake2b:
    digest = hashlib.blake2b(digest_size=16)
    for part in (name.encode(), tenant.encode()):
        digest.update(len(part).to_bytes(4, "big") + part)
    return digest
