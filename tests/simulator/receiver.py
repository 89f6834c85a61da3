"""An endpoint that records what it receives, and answers as a test says."""

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from envoyou_core import Event, verify

SECRET = "whsec_test"


@dataclass(frozen=True)
class Received:
    headers: dict
    body: bytes
    path: str

    @property
    def event(self) -> Event:
        return verify(self.headers, self.body, secret=SECRET, tolerance=10**10)


class Receiver:
    """Records deliveries. `statuses` are those of the next answers; afterwards it answers 200."""

    def __init__(self):
        self.received = []
        self.statuses = []
        self.headers = {}
        self.port = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/hook?a=b"

    @property
    def events(self):
        return [each.event for each in self.received]


@contextmanager
def receiver():
    recorder = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            recorder.received.append(Received(dict(self.headers), body, self.path))
            self.send_response(recorder.statuses.pop(0) if recorder.statuses else 200)
            for name, value in {**recorder.headers, "Content-Length": "2"}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        recorder.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield recorder
        finally:
            server.shutdown()
            thread.join()
