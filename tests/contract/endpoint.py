"""Assertions about a served endpoint: it accepts this delivery, it refuses that one."""

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
"""The fixed time of the served endpoints, in epoch seconds."""

UNCHANGED: HeaderChanges = {}


def clock() -> float:
    return NOW


def signed(event: Event | Mapping[str, Any] | bytes | None = None, **options: Any) -> Delivery:
    """Create an authentic delivery, sent now; of a new sample event by default."""
    return sign_delivery(sample_event() if event is None else event, **{"secret": SECRET, "timestamp": NOW, **options})


def signed_at(timestamp: str, *, body: bytes | None = None) -> Delivery:
    """Create a delivery with a correct signature for any timestamp text."""
    delivery = signed(body)
    signature = sign(delivery.body, secret=SECRET, timestamp=timestamp)
    headers = {"X-EnvoyOU-Timestamp": timestamp, "X-EnvoyOU-Signature": signature}
    return Delivery(delivery.headers | headers, delivery.body)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A served endpoint, the URL of its inbox's database, its folder, and the faults of its stores."""

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
        """Create the head of a request that delivers it, with `headers` changed."""
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
        """Deliver it, check that it is answered 200 and stored byte for byte, and return its record."""
        assert_received(self.send(delivery, **changes), duplicate=duplicate)
        record = self.record(delivery, tenant=tenant)
        assert record is not None
        assert record.event.body == delivery.body
        return record

    def refuses(self, status: int, code: str, delivery: Delivery, **changes: Any) -> Answer:
        """Deliver it, check that it is refused with this status and code and not stored, and return the response."""
        before = self.stored
        answer = self.send(delivery, **changes)
        assert_refused(answer, status, code)
        assert self.stored == before
        return answer

    def record(self, delivery: Delivery, *, tenant: str | None = None) -> InboxRecord | None:
        """Return the record of the delivery's event."""
        return self.served.webhooks.inbox.get(json.loads(delivery.body)["id"], tenant=tenant)

    @property
    def stored(self) -> int:
        """Return the number of events in the inbox."""
        return self.served.webhooks.inbox.stats().total

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let another writer lock the database during the block."""
        # Open the database first, because it could not even be read meanwhile otherwise.
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
        """Let `inbox`, `spool` or both fail in this way (see `FAULTS`) during the block."""
        with self.faults.on(fault, *stores):
            yield

    @property
    def log(self) -> str:
        """Return the log of the serving process, and the output of the server."""
        logged = (self.folder / "log").read_text()
        output = self.served.output
        return logged if output is None else logged + output.read_text(errors="replace")


def assert_received(answer: Answer, *, duplicate: bool = False) -> None:
    """Check that the response is the contract's 200."""
    expected = {"received": True, "duplicate": True} if duplicate else {"received": True}
    assert (answer.status, answer.document) == (200, expected)
    assert answer.headers.get_all("Content-Type") == ["application/json"]


def assert_refused(answer: Answer, status: int, code: str) -> None:
    """Check that the response is the contract's refusal with that status and code."""
    assert (answer.status, answer.document["error"]) == (status, code)
    assert set(answer.document) == {"error", "message"}
    assert isinstance(answer.document["message"], str)
    assert answer.document["message"]
    assert answer.headers.get_all("Content-Type") == ["application/json"]
