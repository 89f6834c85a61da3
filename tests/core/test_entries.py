"""The entries that wrap an application: which requests they take, which they pass on, and the worker's lifetime."""

import asyncio
import io
import threading
from contextlib import contextmanager

import pytest

from envoyou_core import ConfigurationError, Webhooks, asgi, wsgi
from envoyou_core.inbox import NewEvent
from envoyou_core.testing import sample_event, sign_delivery

SECRET = "whsec_test"
PATH = "/hooks"
PATIENCE = 20

OURS = ["/hooks", "/hooks/"]
THEIRS = ["/", "", "/hook", "/hooks//", "/hooks/x", "/hooksx", "/x/hooks", "//hooks", "/HOOKS"]


@pytest.fixture
def webhooks():
    webhooks = Webhooks(secret=SECRET, inbox="memory:", handoff="manual")
    yield webhooks
    webhooks.stop()


@pytest.fixture
def working():
    """Webhooks with a handler that sets `done`."""
    webhooks = Webhooks(secret=SECRET, inbox="memory:")
    webhooks.done = threading.Event()
    webhooks.on("*", name="note")(lambda event: webhooks.done.set())
    yield webhooks
    webhooks.stop()


def delivery():
    return sign_delivery(sample_event(), secret=SECRET)


@pytest.mark.parametrize("entry", [asgi.webhooks_entry, wsgi.webhooks_entry])
def test_a_path_begins_with_a_slash(webhooks, entry):
    with pytest.raises(ConfigurationError, match="'hooks'"):
        entry(None, webhooks, path="hooks")


@pytest.mark.parametrize("entry", [asgi.webhooks_entry, wsgi.webhooks_entry])
def test_lazily_created_webhooks_are_created_with_the_entry(entry):
    class Unusable:
        def __getattr__(self, name):
            raise ConfigurationError("no secret")

    with pytest.raises(ConfigurationError, match="no secret"):
        entry(None, Unusable(), path=PATH)


# WSGI


def wsgi_environ(path, *, script_name="", method="POST"):
    sent = delivery()
    return {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": script_name,
        "PATH_INFO": path,
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(sent.body)),
        "wsgi.input": io.BytesIO(sent.body),
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in sent.headers.items()},
    }


def ask_wsgi(webhooks, environ, *, path=PATH):
    """Return the response, or the request that was passed on to the application."""
    given, started = [], []

    def app(environ, start_response):
        given.append((environ, start_response))
        return [b"theirs"]

    def start_response(status, headers):
        started.append((status, dict(headers)))

    body = wsgi.webhooks_entry(app, webhooks, path=path)(environ, start_response)
    if given:
        assert given[0][0] is environ
        assert given[0][1] is start_response
        assert body == [b"theirs"]
        return "theirs"
    [(status, headers)] = started
    return status, headers, b"".join(body)


@pytest.mark.parametrize("path", OURS)
@pytest.mark.parametrize("script_name", ["", "/mounted", "/hooks"])
def test_wsgi_matches_the_path_relative_to_the_mount(webhooks, path, script_name):
    status, headers, body = ask_wsgi(webhooks, wsgi_environ(path, script_name=script_name))
    assert (status, body) == ("200 OK", b'{"received": true}')
    assert headers == {"Content-Type": "application/json", "Content-Length": "18"}
    assert webhooks.inbox.stats().total == 1


@pytest.mark.parametrize("path", THEIRS)
def test_wsgi_passes_other_requests_to_the_application(webhooks, path):
    environ = wsgi_environ(path)
    assert ask_wsgi(webhooks, environ) == "theirs"
    assert environ["wsgi.input"].tell() == 0
    assert webhooks.inbox.stats().total == 0


def test_wsgi_matches_a_path_beyond_ascii(webhooks):
    environ = wsgi_environ("/häken".encode().decode("latin-1"))
    assert ask_wsgi(webhooks, environ, path="/häken/")[0] == "200 OK"
    assert ask_wsgi(webhooks, wsgi_environ("/häken"), path="/häken") == "theirs"


@pytest.mark.parametrize("path", ["", "/"])
def test_wsgi_matches_the_mount_itself(webhooks, path):
    assert ask_wsgi(webhooks, wsgi_environ(path), path="/")[0] == "200 OK"


def test_wsgi_a_response_to_head_has_no_body(webhooks):
    status, headers, body = ask_wsgi(webhooks, wsgi_environ("/hooks", method="HEAD"))
    assert (status, headers["Allow"], body) == ("405 Method Not Allowed", "POST", b"")
    assert int(headers["Content-Length"]) > 0


@pytest.mark.parametrize("path", ["/", "/hooks"])
def test_wsgi_the_first_request_to_any_path_starts_the_worker(working, path):
    working.inbox.add(NewEvent(sample_event())).result(PATIENCE)
    ask_wsgi(working, wsgi_environ(path))
    assert working.done.wait(PATIENCE)


def test_wsgi_a_secret_callable_runs_in_the_context_of_handlers():
    inside = []
    depth = 0

    @contextmanager
    def around():
        nonlocal depth
        depth += 1
        yield
        depth -= 1

    def secret(webhook_id):
        inside.append(depth)
        return SECRET

    webhooks = Webhooks(secret=secret, inbox="memory:", handoff="manual")
    webhooks.add_context(around)
    assert ask_wsgi(webhooks, wsgi_environ("/hooks"))[0] == "200 OK"
    assert (inside, depth) == ([1], 0)


# ASGI


def http_scope(path, *, root_path=None, kind="http"):
    scope = {
        "type": kind,
        "method": "POST",
        "path": path,
        "headers": [(name.lower().encode(), value.encode()) for name, value in delivery().headers.items()],
    }
    return scope if root_path is None else {**scope, "root_path": root_path}


def ask_asgi(webhooks, scope, *, path=PATH):
    """Return the response's status, or the request that was passed on to the application."""
    given, sent = [], []

    async def app(*arguments):
        given.append(arguments)

    async def receive():
        return {"type": "http.request", "body": b"unsigned"}

    async def send(message):
        sent.append(message)

    asyncio.run(asgi.webhooks_entry(app, webhooks, path=path)(scope, receive, send))
    if given:
        assert given == [(scope, receive, send)]
        assert not sent
        return "theirs"
    return sent[0]["status"]


@pytest.mark.parametrize("ending", ["", "/"])
@pytest.mark.parametrize("root_path", [None, "", "/mounted", "/mounted/", "/hooks"])
def test_asgi_matches_the_path_relative_to_the_mount(webhooks, ending, root_path):
    path = f"{(root_path or '').rstrip('/')}{PATH}{ending}"
    assert ask_asgi(webhooks, http_scope(path, root_path=root_path)) == 401


@pytest.mark.parametrize("path", THEIRS)
def test_asgi_passes_other_requests_to_the_application(webhooks, path):
    assert ask_asgi(webhooks, http_scope(path)) == "theirs"


def test_asgi_passes_other_mounts_to_the_application(webhooks):
    assert ask_asgi(webhooks, http_scope("/mounted/x/hooks", root_path="/mounted")) == "theirs"
    assert ask_asgi(webhooks, http_scope("/mountedx/hooks", root_path="/mounted")) == "theirs"


def test_asgi_passes_other_protocols_to_the_application(webhooks):
    assert ask_asgi(webhooks, http_scope("/hooks", kind="websocket")) == "theirs"


def test_asgi_matches_a_path_beyond_ascii(webhooks):
    assert ask_asgi(webhooks, http_scope("/häken/"), path="/häken") == 401


class Life:
    """A server that runs the lifespan of an application, and an application that records its events."""

    def __init__(self, webhooks, *, fails=False):
        self.webhooks = webhooks
        self.fails = fails
        self.when_started = lambda: None
        self.noted = []
        self.sent = []

    async def app(self, scope, receive, send):
        assert (await receive())["type"] == "lifespan.startup"
        self.note("app begins")
        try:
            await send({"type": "lifespan.startup.complete"})
        except ConfigurationError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        self.note("app lives")
        assert (await receive())["type"] == "lifespan.shutdown"
        self.note("app ends")
        await send({"type": "lifespan.shutdown.complete"})

    def note(self, what):
        self.noted.append((what, self.webhooks._handoff.alive))

    async def run(self):
        messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive():
            return next(messages)

        async def send(message):
            self.sent.append(message)
            if message["type"] == "lifespan.startup.complete":
                self.when_started()

        await asgi.webhooks_entry(self.app, self.webhooks, path=PATH)({"type": "lifespan"}, receive, send)


def test_asgi_the_worker_runs_within_the_lifespan_of_the_application(working):
    life = Life(working)
    asyncio.run(life.run())
    assert life.noted == [("app begins", False), ("app lives", True), ("app ends", False)]
    assert [message["type"] for message in life.sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_asgi_the_application_does_not_start_if_the_worker_cannot():
    life = Life(Webhooks(secret=SECRET, inbox="memory:", spool="sqlite:////nowhere/spool.db"))
    asyncio.run(life.run())
    [message] = life.sent
    assert message["type"] == "lifespan.startup.failed"
    assert "/nowhere" in message["message"]


def test_asgi_a_crashed_lifespan_stops_the_worker(working):
    life = Life(working)

    async def app(scope, receive, send):
        await send({"type": "lifespan.startup.complete"})
        life.note("app lives")
        raise OSError

    life.app = app
    with pytest.raises(OSError):  # noqa: PT011 - the application's own
        asyncio.run(life.run())
    assert life.noted == [("app lives", True)]
    assert not working._handoff.alive


async def refuses_lifespan(scope, receive, send):
    if scope["type"] == "lifespan":
        raise ValueError("of no lifespan")


async def ignores_lifespan(scope, receive, send):
    pass


@pytest.mark.parametrize("app", [refuses_lifespan, ignores_lifespan])
def test_asgi_the_worker_has_a_lifespan_even_if_the_application_has_none(working, app):
    life = Life(working)
    life.app = app
    life.when_started = lambda: life.note("started")
    asyncio.run(life.run())
    assert [message["type"] for message in life.sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert life.noted == [("started", True)]
    assert not working._handoff.alive


def test_asgi_a_server_does_not_start_if_the_worker_of_an_application_without_a_lifespan_cannot():
    life = Life(Webhooks(secret=SECRET, inbox="memory:", spool="sqlite:////nowhere/spool.db"))
    life.app = refuses_lifespan
    asyncio.run(life.run())
    [message] = life.sent
    assert message["type"] == "lifespan.startup.failed"
    assert "/nowhere" in message["message"]


def test_asgi_if_no_lifespan_is_run_the_first_request_to_any_path_starts_the_worker(working):
    working.inbox.add(NewEvent(sample_event())).result(PATIENCE)

    async def serve():
        entry = asgi.webhooks_entry(ignores_lifespan, working, path=PATH)
        await entry(http_scope("/"), None, None)
        assert await asyncio.to_thread(working.done.wait, PATIENCE)
        await working._handoff.astop()

    asyncio.run(serve())
