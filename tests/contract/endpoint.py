"""What a test says of an endpoint that is being served: it accepts this delivery, it refuses that one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import NullPool, create_engine

from envoyou_core import Event, sign
from envoyou_core.inbox import InboxRecord
from envoyou_core.testing import Delivery, sample_event, sign_delivery
from tests.contract import wire
from tests.contract.clients import Served
from tests.contract.faults import Faults
from tests.contract.wire import Answer, HeaderChanges

SECRET = "whsec_the_contract_suite"
NOW = 1_767_225_600
"""Where the clock of the served endpoints stands, in epoch seconds."""

UNCHANGED: HeaderChanges = {}


def clock() -> float:
    return NOW


def signed(event: Event | Mapping[str, Any] | bytes | None = None, **options: Any) -> Delivery:
    """A genuine delivery, sent now; of a new sample event, where none is given."""
    return sign_delivery(sample_event() if event is None else event, **{"secret": SECRET, "timestamp": NOW, **options})


def signed_at(timestamp: str, *, body: bytes | None = None) -> Delivery:
    """A delivery whose signature is right for a timestamp of any spelling."""
    delivery = signed(body)
    signature = sign(delivery.body, secret=SECRET, timestamp=timestamp)
    headers = {"X-EnvoyOU-Timestamp": timestamp, "X-EnvoyOU-Signature": signature}
    return Delivery(delivery.headers | headers, delivery.body)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A served endpoint, the URL of its inbox's database, a folder of its own, and what its stores suffer from."""

    served: Served
    database: str
    folder: Path
    faults: Faults

    @property
    def address(self) -> tuple[str, int]:
        return self.served.host, self.served.port

    def head(
        self,
        delivery: Delivery,
        *,
        method: str = "POST",
        path: str | None = None,
        headers: HeaderChanges = UNCHANGED,
    ) -> bytes:
        """The head of a request that delivers it, with `headers` changed."""
        sent: HeaderChanges = {
            "Host": f"{self.served.host}:{self.served.port}",
            "Connection": "close",
            "Content-Length": str(len(delivery.body)),
            **delivery.headers,
            **headers,
        }
        return wire.head(method, path or self.served.path, wire.pairs(sent))

    def send(self, delivery: Delivery, *, method: str = "POST", **changes: Any) -> Answer:
        """Deliver it; `changes` are those of `head`."""
        request = self.head(delivery, method=method, **changes) + delivery.body
        return wire.exchange(self.address, [request], method=method)

    def accepts(
        self, delivery: Delivery, *, duplicate: bool = False, tenant: str | None = None, **changes: Any
    ) -> InboxRecord:
        """Deliver it: it must be answered 200, and stored as it was sent. Returns its record."""
        assert_received(self.send(delivery, **changes), duplicate=duplicate)
        record = self.record(delivery, tenant=tenant)
        assert record is not None
        assert record.event.body == delivery.body
        return record

    def refuses(self, status: int, code: str, delivery: Delivery, **changes: Any) -> Answer:
        """Deliver it: it must be refused so, and leave nothing in the inbox. Returns the answer."""
        before = self.stored
        answer = self.send(delivery, **changes)
        assert_refused(answer, status, code)
        assert self.stored == before
        return answer

    def record(self, delivery: Delivery, *, tenant: str | None = None) -> InboxRecord | None:
        """What the inbox holds of the delivery's event."""
        return self.served.webhooks.inbox.get(json.loads(delivery.body)["id"], tenant=tenant)

    @property
    def stored(self) -> int:
        """How many events there are in the inbox."""
        return self.served.webhooks.inbox.stats().total

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Another writer holds the database for as long as the block lasts."""
        # A database that nobody has opened yet could not even be read meanwhile.
        self.served.webhooks.inbox.open()
        engine = create_engine(self.database, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        lock, unlock = {
            "sqlite": ("BEGIN IMMEDIATE", "ROLLBACK"),
            "postgresql": ("BEGIN; LOCK TABLE envoyou_processed_event IN EXCLUSIVE MODE", "ROLLBACK"),
            "mysql": ("LOCK TABLES envoyou_processed_event READ", "UNLOCK TABLES"),
        }[engine.dialect.name.replace("mariadb", "mysql")]
        with engine.connect() as connection:
            connection.exec_driver_sql(lock)
            yield
            connection.exec_driver_sql(unlock)

    @contextmanager
    def failing(self, fault: str, *stores: str) -> Iterator[None]:
        """`inbox`, `spool` or both fail so (see `FAULTS`) for as long as the block lasts."""
        with self.faults.on(fault, *stores):
            yield

    @property
    def log(self) -> str:
        """All that has been logged where it is served, and what the server has written."""
        logged = (self.folder / "log").read_text()
        output = self.served.output
        return logged if output is None else logged + output.read_text(errors="replace")


def assert_received(answer: Answer, *, duplicate: bool = False) -> None:
    """The answer is the contract's 200."""
    expected = {"received": True, "duplicate": True} if duplicate else {"received": True}
    assert (answer.status, answer.document) == (200, expected)
    assert answer.headers.get_all("Content-Type") == ["application/json"]


def assert_refused(answer: Answer, status: int, code: str) -> None:
    """The answer is the contract's refusal of that status and code."""
    assert (answer.status, answer.document["error"]) == (status, code)
    assert set(answer.document) == {"error", "message"}
    assert isinstance(answer.document["message"], str)
    assert answer.document["message"]
    assert answer.headers.get_all("Content-Type") == ["application/json"]
