"""A blocking and an async client for each test, without real waits."""

import asyncio
from dataclasses import dataclass, field

import pytest

from envoyou_core.client import AsyncEnvoyouClient, EnvoyouClient

KEY = "key_that_nobody_may_see"
NOW = 1_750_000_000.0


@dataclass
class Caller:
    """Performs calls with a new client.

    Attributes:
        kind: `blocking` or `async`.
        waits: the seconds that the client has waited between attempts.
    """

    kind: str
    waits: list[float] = field(default_factory=list)

    def call(self, server, action, **options):
        """Return what `action` returns for a client; async, what it gives when awaited."""
        options = {"api_key": KEY, "base_url": getattr(server, "url", server), "clock": lambda: NOW, **options}
        if self.kind == "blocking":
            with EnvoyouClient(sleep=self.waits.append, **options) as client:
                return action(client)
        return asyncio.run(self._call_async(action, options))

    async def _call_async(self, action, options):
        async def sleep(seconds):
            self.waits.append(seconds)

        async with AsyncEnvoyouClient(sleep=sleep, **options) as client:
            return await action(client)


@pytest.fixture(params=["blocking", "async"])
def caller(request):
    return Caller(request.param)


@pytest.fixture
def blocking():
    return Caller("blocking")
