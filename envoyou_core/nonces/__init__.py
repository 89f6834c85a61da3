"""Nonces seen lately: a second line of defence against replays, behind the inbox's unique key.

See the guide, "Recommended Validation Steps".
"""

from __future__ import annotations

import hashlib
from typing import Final, Protocol, runtime_checkable

from envoyou_core.errors import ConfigurationError

__all__ = ["NONCE_LIFETIME", "NonceStore", "nonce_key", "open_nonces"]

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


def open_nonces(url: str) -> NonceStore:
    """The store that `url` stands for; it connects when it is first used.

    Args:
        url: `redis://...`, shared by all processes, or `memory:`, for each process alone.

    Raises:
        ConfigurationError: the URL is neither, or redis-py is not installed.
    """
    if url.rstrip("/") == "memory:":
        from envoyou_core.nonces.memory import MemoryNonceStore

        return MemoryNonceStore()
    if url.partition(":")[0] not in {"redis", "rediss", "unix"}:
        raise ConfigurationError("nonces are kept in 'memory:' or at a redis:// URL")
    try:
        from envoyou_core.nonces.redis import RedisNonceStore
    except ImportError as error:
        raise ConfigurationError("nonces in Redis need redis-py: pip install 'envoyou-webhooks[redis]'") from error
    try:
        return RedisNonceStore(url)
    except ValueError:
        # Its text may hold the URL, and the URL a password.
        raise ConfigurationError("the URL of the nonce store cannot be used") from None


def nonce_key(name: str, tenant: str, nonce: bytes) -> str:
    """A key of fixed length for a nonce of any: a sender cannot fill the store with one header."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (name.encode(), tenant.encode(), nonce):
        digest.update(len(part).to_bytes(4, "big") + part)
    return digest.hexdigest()
