"""A nonce store in Redis, shared by all processes and machines."""

from __future__ import annotations

from typing import Any

from redis import Redis

from envoyou_core.circuit_breaker import CircuitBreaker

__all__ = ["RedisNonceStore"]

TIMEOUT = 0.5
"""Time limit of a call, in seconds: the second line of defence must not delay the first."""


class RedisNonceStore:
    """A `NonceStore` that several processes share. See the guide, "Recommended Validation Steps".

    While Redis is down, duplicates are recognised by the inbox's unique key alone, and an error is logged. One request
    a second then tries Redis again.

    Args:
        redis: a URL such as `redis://localhost:6379/0`, or your own client, whose timeouts should be short.
        prefix: the prefix of every key.
    """

    blocking = True

    def __init__(self, redis: str | Redis, *, prefix: str = "envoyou:nonce:") -> None:
        if isinstance(redis, str):
            redis = Redis.from_url(redis, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT)
        self._redis = redis
        self._prefix = prefix
        self._breaker = CircuitBreaker()

    def lookup(self, key: str) -> str | None:
        """See `NonceStore.lookup`."""
        event_id: Any = self._breaker.call(lambda: self._redis.get(self._prefix + key))
        return event_id.decode() if isinstance(event_id, bytes) else event_id

    def bind(self, key: str, event_id: str, lifetime: float) -> None:
        """See `NonceStore.bind`."""
        milliseconds = round(lifetime * 1000)
        self._breaker.call(lambda: self._redis.set(self._prefix + key, event_id.encode(), px=milliseconds, nx=True))
