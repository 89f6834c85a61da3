"""Accepts events and handles them, and prints how many were processed and the resident memory after each tenth.

python -m benchmarks.workers.accumulating sqlite:///inbox.db 200000
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.acknowledgements import SECRET, deliveries
from envoyou_core import Event, Webhooks
from envoyou_core.inbox import Status

BATCH = 500
THREADS = 32
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def main() -> None:
    url, count = sys.argv[1], int(sys.argv[2])
    webhooks = Webhooks(secret=SECRET, inbox=url, handoff="manual")

    @webhooks.on("*")
    def read(event: Event) -> None:
        event.data.object["id"]

    sizes = []
    accepted = 0
    with ThreadPoolExecutor(THREADS) as pool:
        while accepted < count:
            batch = min(BATCH, count - accepted)
            if any(response.status != 200 for response in pool.map(webhooks.receive, deliveries(batch))):
                raise SystemExit("a delivery was not accepted")
            webhooks.drain()
            accepted += batch
            if accepted * 10 >= count * (len(sizes) + 1):
                sizes.append(resident())
    print(webhooks.inbox.stats(exact=True).by_status[Status.PROCESSED], *sizes)
    webhooks.inbox.close()


if __name__ == "__main__":
    main()
