"""The machine of a database disappears: no packet comes back, not even a reset of the connections."""

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
    pytest.mark.skipif(sys.platform != "linux", reason="dropping packets on a socket requires Linux"),
]

SO_ATTACH_FILTER = 26


class Proxy:
    """A TCP proxy in front of a PostgreSQL server that can drop all packets of its connections."""

    def __init__(self, server: URL, listener: socket.socket) -> None:
        self._server = server
        self._listener = listener
        self._clients: list[socket.socket] = []
        self._all: list[socket.socket] = [listener]

    @property
    def url(self) -> URL:
        """The URL of the server through the proxy."""
        host, port = self._listener.getsockname()
        return self._server.set(host=host, port=port).difference_update_query(["host"])

    def serve(self) -> None:
        """Forward data in both directions until the listener is closed."""
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = self._connect()
                self._clients.append(client)
                self._all += (client, server)
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=_forward, args=ends, daemon=True).start()

    def vanish(self) -> None:
        """Drop all packets that arrive on the existing connections, so that none is acknowledged."""
        drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
        program = struct.pack("HL", 1, ctypes.addressof(drop_all))
        for client in self._clients:
            client.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)

    def close(self) -> None:
        for each in self._all:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _connect(self) -> socket.socket:
        host = self._server.host or cast(str, self._server.query["host"])
        port = self._server.port or 5432
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server


def _forward(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def proxy_to(server: str) -> Iterator[Proxy]:
    with closing(Proxy(make_url(server), socket.create_server(("127.0.0.1", 0)))) as proxy:
        threading.Thread(target=proxy.serve, daemon=True).start()
        yield proxy


def test_the_inbox_connects_again(postgres_url: str) -> None:
    with proxy_to(postgres_url) as proxy, closing(SqlInbox(proxy.url)) as inbox:
        inbox.migrate()
        assert inbox.add(NewEvent(sample_event())).result(PATIENCE) is Added.NEW
        proxy.vanish()
        assert inbox.add(NewEvent(sample_event())).result(PATIENCE) is Added.NEW


def test_a_waiting_statement_fails(postgres_url: str) -> None:
    with proxy_to(postgres_url) as proxy, ThreadPoolExecutor(1) as thread:
        engine = open_engine(proxy.url)
        with engine.connect() as connection:
            waiting = thread.submit(connection.execute, text(f"SELECT pg_sleep({2 * PATIENCE})"))
            while not _is_asleep(postgres_url):
                assert not waiting.done()
            proxy.vanish()
            with pytest.raises(OperationalError):
                waiting.result(PATIENCE)
        engine.dispose()


def _is_asleep(url: str) -> bool:
    engine = open_engine(url)
    with engine.connect() as connection:
        asleep = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        sleeping = connection.scalar(text(asleep))
    engine.dispose()
    return bool(sleeping)
