"""A 200 means that the event is on disk: it is handled even if the server is killed right after."""

from __future__ import annotations

import socket
import time

import pytest

from envoyou_core.testing import sample_event, sign_delivery
from tests.contract import wire
from tests.servers.processes import SECRET, Site, wait_for

pytestmark = pytest.mark.slow


def read_status_line(connection: socket.socket) -> bytes:
    received = b""
    while b"\r\n" not in received:
        part = connection.recv(1)
        assert part, received
        received += part
    return received


@pytest.mark.parametrize("moment", ["at the status line", "within the handler"])
def test_killed_after_the_answer(running: Site, moment: str) -> None:
    event = sample_event("user.created")
    delivery = sign_delivery(event, secret=SECRET)
    with socket.create_connection(running.address, timeout=wire.PATIENCE) as connection:
        connection.sendall(running.head(delivery) + delivery.body)
        status_line = read_status_line(connection)
        if moment == "within the handler":
            wait_for(lambda: running.begun)
        running.kill()
    assert status_line.startswith(b"HTTP/1.1 200 ")

    left = running.record(event.id)
    assert left["status"] in ({"processing"} if moment == "within the handler" else {"received", "processing"})
    assert running.effects == []

    running.start()
    restarted_at = time.monotonic()
    running.visit()
    running.release()
    wait_for(lambda: running.effects)
    print(f"\nkilled {moment}: last effect {time.monotonic() - restarted_at:.1f} s after the restart")
    wait_for(lambda: running.record(event.id)["status"] == "processed")
    assert [event_id for event_id, _ in running.effects] == [event.id]
    assert running.record(event.id)["crashes"] == (1 if left["status"] == "processing" else 0)
