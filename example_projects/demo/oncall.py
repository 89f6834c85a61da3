"""The on-call service that the example calls when a limit is reached. It can fail at first."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

__all__ = ["Call", "OnCall"]


@dataclass(frozen=True)
class Call:
    """One call, answered with `status`; `at` is in seconds of a monotonic clock."""

    at: float
    status: int


class OnCall:
    """An HTTP server on a free local port, in a thread of this process."""

    def __init__(self) -> None:
        self._calls: dict[str, list[Call]] = defaultdict(list)
        self._failures: dict[str, int] = {}
        on_call = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                document = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
                self.send_response(on_call.answer(self.headers["Idempotency-Key"], document["what"]))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def fail_first(self, event_type: str, times: int) -> None:
        """Answer 503 to the first calls about each event of a type."""
        self._failures[event_type] = times

    def answer(self, event_id: str, event_type: str) -> int:
        calls = self._calls[event_id]
        status = 503 if len(calls) < self._failures.get(event_type, 0) else 200
        calls.append(Call(time.monotonic(), status))
        return status

    def calls(self, event_id: str) -> list[Call]:
        """Return the calls about an event, in order."""
        return list(self._calls.get(event_id, ()))

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
