"""Small web servers in threads of the test process."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer


@contextmanager
def running(server):
    """Run a server until the block ends."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def answering(status, headers=dict, body=b""):
    """Answer every request alike; yields the URL. `headers` is called for each answer."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response_only(status)
            for name, value in headers().items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body if self.command != "HEAD" else b"")

        def log_message(self, format, *args): ...

    for method in ("GET", "HEAD", "POST"):
        setattr(Handler, f"do_{method}", Handler.answer)
    with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}/"


class _Quiet(WSGIRequestHandler):
    def log_message(self, format, *args): ...


class _QuietServer(WSGIServer):
    def handle_error(self, request, client_address): ...


@contextmanager
def serving(application, tls=None):
    """Serve a WSGI application; yields the port. `tls`: the `SSLContext` of the server, if it is to be encrypted."""
    server = _QuietServer(("127.0.0.1", 0), _Quiet)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.set_app(application)
    with running(server):
        yield server.server_port
