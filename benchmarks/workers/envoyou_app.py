import os
from pathlib import Path

from sqlalchemy import Connection

from benchmarks.effects import insert_effect
from benchmarks.ledger import Ledger
from envoyou_core import Event, Webhooks
from envoyou_core.inbox.records import NewEvent
from envoyou_core.testing import sample_event

ledger = Ledger(Path(os.environ["BENCHMARK_LEDGER"]))
webhooks = Webhooks(secret="whsec_benchmark", inbox=os.environ["BENCHMARK_INBOX"], handoff="manual")


def plain(event: Event) -> None:
    ledger.note(event.data.object["number"])


async def asynchronous(event: Event) -> None:
    ledger.note(event.data.object["number"])


def idle_in_transaction(event: Event, connection: Connection) -> None:
    ledger.note(event.data.object["number"])


def transactional(event: Event, connection: Connection) -> None:
    number = event.data.object["number"]
    insert_effect(connection, number, event.id)
    ledger.note(number)


HANDLERS = {handler.__name__: handler for handler in (plain, asynchronous, idle_in_transaction, transactional)}
webhooks.on("*")(HANDLERS[os.environ["BENCHMARK_HANDLER"]])


def enqueue(jobs: int) -> None:
    storing = [webhooks.inbox.add(NewEvent(sample_event(object={"number": number}))) for number in range(jobs)]
    for stored in storing:
        stored.result()
    webhooks.inbox.close()
