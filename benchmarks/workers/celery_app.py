import os
from pathlib import Path

from celery import Celery

from benchmarks.ledger import Ledger

ledger = Ledger(Path(os.environ["BENCHMARK_LEDGER"]))
app = Celery("benchmark", broker=os.environ["BENCHMARK_REDIS"])
app.conf.broker_transport_options = {"global_keyprefix": os.environ["BENCHMARK_PREFIX"]}


@app.task(name="job")
def job(number: int) -> None:
    ledger.note(number)


def enqueue(jobs: int) -> None:
    for number in range(jobs):
        job.delay(number)
