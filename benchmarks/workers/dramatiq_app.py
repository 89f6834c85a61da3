import os
from pathlib import Path

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.ledger import Ledger

ledger = Ledger(Path(os.environ["BENCHMARK_LEDGER"]))
dramatiq.set_broker(RedisBroker(url=os.environ["BENCHMARK_REDIS"], namespace=os.environ["BENCHMARK_PREFIX"] + "jobs"))


@dramatiq.actor
def job(number: int) -> None:
    ledger.note(number)


def enqueue(jobs: int) -> None:
    for number in range(jobs):
        job.send(number)
