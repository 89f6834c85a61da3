"""A database whose machine vanishes: it says no word more, not even that it is gone."""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from typing import cast

import pytest
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import OperationalError

from envoyou_core.inbox import Added, NewEvent
from envoyou_core.inbox.sql.engines import open_engine
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.testing import sample_event
from tests.servers.processes import PATIENCE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.service,
    pytest.mark.skipif(sys.platform != "linux", reason="what arrives can be dropped on Linux only"),
]

SO_ATTACH_FILTER = 26


class Network:
    """A way over TCP to a PostgreSQL server, on whose connections all that is sent can get lost."""

    def __init__(self, server: URL, listener: socket.socket) -> None:
        self._server = server
        self._listener = listener
        self._clients: list[socket.socket] = []
        self._all: list[socket.socket] = [listener]

    @property
    def url(self) -> URL:
        """The server's, by this way."""
        host, port = self._listener.getsockname()
        return self._server.set(host=host, port=port).difference_update_query(["host"])

    def serve(self) -> None:
        """Carry everything both ways until the listener is closed."""
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = self._connect()
                self._clients.append(client)
                self._all += (client, server)
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=_carry, args=ends, daemon=True).start()

    def vanish(self) -> None:
        """Drop whatever arrives on the connections there are, before it is acknowledged."""
        drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
        program = struct.pack("HL", 1, ctypes.addressof(drop_all))
        for client in self._clients:
            client.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)

    def close(self) -> None:
        for one in self._all:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _connect(self) -> socket.socket:
        host = self._server.host or cast(str, self._server.query["host"])
        port = self._server.port or 5432
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server


def _carry(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def network(server: str) -> Iterator[Network]:
    with closing(Network(make_url(server), socket.create_server(("127.0.0.1", 0)))) as way:
        threading.Thread(target=way.serve, daemon=True).start()
        yield way


def test_another_that_has_taken_its_place_is_found(postgres_url: str) -> None:
    with network(postgres_url) as way, closing(SqlInbox(way.url)) as inbox:
        inbox.migrate()
        assert inbox.add(NewEvent(sample_event())).result(PATIENCE) is Added.NEW
        way.vanish()
        assert inbox.add(NewEvent(sample_event())).result(PATIENCE) is Added.NEW


def test_who_waits_for_its_answer_is_told(postgres_url: str) -> None:
    with network(postgres_url) as way, ThreadPoolExecutor(1) as thread:
        engine = open_engine(way.url)
        with engine.connect() as connection:
            waiting = thread.submit(connection.execute, text(f"SELECT pg_sleep({2 * PATIENCE})"))
            while not _is_asleep(postgres_url):
                assert not waiting.done()
            way.vanish()
            with pytest.raises(OperationalError):
                waiting.result(PATIENCE)
        engine.dispose()


def _is_asleep(url: str) -> bool:
    engine = open_engine(url)
    with engine.connect() as connection:
        asleep = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        found = connection.scalar(text(asleep))
    engine.dispose()
    return bool(found)
