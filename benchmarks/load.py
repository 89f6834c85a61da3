"""Sends prepared requests to a server over kept-alive connections, one at a time on each, as fast as it answers."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.measuring import MeasurementError

__all__ = ["Load", "send_all"]

TIMEOUT = 60.0
"""Seconds to wait for any response."""

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Load:
    """What was measured on the side of the sender.

    Attributes:
        seconds: from the first request to the last response.
        latencies: seconds of each request, sorted.
    """

    seconds: float
    latencies: Sequence[float]

    def percentile(self, share: float) -> float:
        """Return the latency in milliseconds that this share of the requests does not exceed."""
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * share))] * 1000


def send_all(port: int, requests: Sequence[bytes], connections: int) -> Load:
    """Send `requests` over so many connections at once.

    Raises:
        MeasurementError: a response was not a 200, or did not come.
    """
    return asyncio.run(_send_all(port, requests, connections))


async def _send_all(port: int, requests: Sequence[bytes], connections: int) -> Load:
    waiting = iter(requests)
    latencies: list[float] = []
    streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(connections)]
    try:
        started = time.perf_counter()
        await asyncio.gather(*(_send_each(reader, writer, waiting, latencies) for reader, writer in streams))
        seconds = time.perf_counter() - started
    finally:
        for _, writer in streams:
            writer.close()
    return Load(seconds, sorted(latencies))


async def _send_each(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, waiting: Iterator[bytes], latencies: list[float]
) -> None:
    for request in waiting:
        started = time.perf_counter()
        writer.write(request)
        try:
            async with asyncio.timeout(TIMEOUT):
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                if not head.startswith(b"HTTP/1.1 200 ") or length is None:
                    raise MeasurementError(f"expected a 200 with its length, got {head[:200]!r}")
                await reader.readexactly(int(length[1]))
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError) as error:
            raise MeasurementError(f"a connection ended without a response: {error!r}") from None
        latencies.append(time.perf_counter() - started)
