"""Nonces in Redis: one memory for all processes and machines."""

from __future__ import annotations

from typing import Any

from redis import Redis

from envoyou_core.nonces.breaker import Breaker

__all__ = ["RedisNonceStore"]

TIMEOUT = 0.5
"""Seconds that a call may take: the store is the second line of defence, and must not hold up the first."""


class RedisNonceStore:
    """A `NonceStore` that several processes share. See the guide, "Recommended Validation Steps".

    While Redis is away, events are accepted on the inbox's unique key alone, and the log says so. It is asked once a
    second then, by one request.

    Args:
        redis: a URL such as `redis://localhost:6379/0`, or a client of your own, whose timeouts should be short.
        prefix: of every key.
    """

    blocking = True

    def __init__(self, redis: str | Redis, *, prefix: str = "envoyou:nonce:") -> None:
        if isinstance(redis, str):
            redis = Redis.from_url(redis, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT)
        self._redis = redis
        self._prefix = prefix
        self._breaker = Breaker()

    def lookup(self, key: str) -> str | None:
        """See `NonceStore.lookup`."""
        event_id: Any = self._breaker.call(lambda: self._redis.get(self._prefix + key))
        return event_id.decode() if isinstance(event_id, bytes) else event_id

    def bind(self, key: str, event_id: str, lifetime: float) -> None:
        """See `NonceStore.bind`."""
        milliseconds = round(lifetime * 1000)
        self._breaker.call(lambda: self._redis.set(self._prefix + key, event_id.encode(), px=milliseconds, nx=True))
