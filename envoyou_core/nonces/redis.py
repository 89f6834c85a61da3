"""A nonce store in Redis, shared by all processes and machines."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import urlsplit

from redis import Redis
from redis.exceptions import RedisError

from envoyou_core.circuit_breaker import CircuitBreaker
from envoyou_core.errors import ConfigurationError

__all__ = ["RedisNonceStore"]

SCHEMES: Final = {"redis", "rediss", "unix"}

TIMEOUT = 0.5
"""Time limit of a call, in seconds: the second line of defence must not delay the first."""


class RedisNonceStore:
    """A `NonceStore` that several processes share. See the guide, "Recommended Validation Steps".

    While Redis is down, duplicates are recognised by the inbox's unique key alone, and an error is logged. One request
    a second then tries Redis again.

    Args:
        redis: a URL such as `redis://localhost:6379/0`, or your own client, whose timeouts should be short.
        prefix: the prefix of every key.

    Raises:
        ConfigurationError: the URL cannot be used.
    """

    blocking = True

    def __init__(self, redis: str | Redis, *, prefix: str = "envoyou:nonce:") -> None:
        self._redis = _client(redis) if isinstance(redis, str) else redis
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


def _client(url: str) -> Redis:
    url = url.strip()
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ConfigurationError(
            "nonces must be 'memory:' or a URL such as redis://host:6379/0, rediss://host:6379/0 or unix:///path?db=0"
        )
    if parts.scheme != "unix" and not re.fullmatch(r"/?[0-9]*", parts.path):
        # redis-py would take the first database.
        raise ConfigurationError("the path of the nonce store's URL must be the number of a database, such as /0")
    try:
        client = Redis.from_url(url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT)
        pool = client.connection_pool
        # It connects later. An option that it does not know would fail each request.
        pool.connection_class(**pool.connection_kwargs)
    except (ValueError, TypeError, RedisError) as error:
        # The rest of the text may hold a part of the URL, and so of a password.
        option = re.search(r"(?:Invalid value for|keyword argument) '(\w+)'", str(error))
        what = f"the option {option[1]!r} in the nonce store's URL" if option else "the nonce store's URL"
        hint = "" if option else ": special characters in a password must be percent-encoded"
        raise ConfigurationError(f"{what} cannot be used{hint}") from None
    return client
