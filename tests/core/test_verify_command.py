"""`envoyou verify`, with captures that a server behind real middleware and a real nginx has written."""

import gzip
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import unicodedata
import zlib
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from io import BytesIO
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import pytest
from typer.testing import CliRunner

from envoyou_core import Webhooks
from envoyou_core.cli.command_line import app
from envoyou_core.reception.rewrites import MAX_REWRITTEN, rewritten_bodies
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_core.wsgi import webhooks_entry

SECRET = "whsec_of_the_verify_tests"
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
OBJECT = {"id": "user_1", "name": "Zo\u00eb", "url": "https://example.com/a/b"}


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET", f"whsec_newer_secret_of_the_tests,{SECRET}")
    monkeypatch.delenv("ENVOYOU_APP", raising=False)
    return lambda *arguments, **options: CliRunner().invoke(app, ["verify", *arguments], **options)


@pytest.fixture
def diagnose(run, tmp_path):
    """Post a delivery to a server behind a middleware, and return the exit code and what `verify` finds out."""

    def diagnose(delivery, middleware=None, *, url=None, clock=time.time):
        receiving = Webhooks(
            secret=SECRET, inbox="memory:", handoff="manual", capture_rejected=tmp_path / "captures", clock=clock
        )
        application = webhooks_entry(not_found, receiving, path="/")
        with serving(application if middleware is None else middleware(application)) as port:
            target = f"http://127.0.0.1:{port}/" if url is None else url(port)
            try:
                with urlopen(Request(target, delivery.body, delivery.headers), timeout=10):
                    raise AssertionError("it was accepted")
            except HTTPError as refusal:
                refusal.close()
        [file] = (tmp_path / "captures").iterdir()
        result = run("--request", str(file), "--json")
        document = json.loads(result.stdout)
        return result.exit_code, [cause["cause"] for cause in document["causes"]], document

    return diagnose


def not_found(environ, start_response):
    start_response("404 Not Found", [])
    return []


@contextmanager
def serving(application):
    class Quiet(WSGIRequestHandler):
        def log_message(self, format, *args): ...

    server = WSGIServer(("127.0.0.1", 0), Quiet)
    server.set_app(application)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def changing(change, **headers):
    """A middleware that reads the body, and passes another one on, with other headers in the environment."""

    def middleware(application):
        def run(environ, start_response):
            body = change(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            environ |= {"wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body)), **headers}
            return application(environ, start_response)

        return run

    return middleware


def compact(**options):
    event = sample_event(object=OBJECT, **options)
    return json.dumps(json.loads(event.body), separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("change", "cause", "how"),
    [
        (lambda body: json.dumps(json.loads(body), indent=2).encode(), "body_reserialised", "JSON.stringify"),
        (lambda body: body.replace(b"/", b"\\/"), "body_reserialised", "without spaces"),
        (lambda body: body + b"\n", "white_space", "without the white space around it"),
        (lambda body: unicodedata.normalize("NFD", body.decode()).encode(), "unicode_normalised", "form NFC"),
        (lambda body: body.decode().encode("latin-1"), "encoding_changed", "in UTF-8 instead of Latin-1"),
        (lambda body: body.decode("latin-1").encode(), "encoding_changed", "once and not twice"),
        (lambda body: body.replace(b"user_1", b"user_2"), "secret_or_content", "2 secrets"),
    ],
)
def test_a_changed_body(diagnose, change, cause, how):
    code, causes, document = diagnose(sign_delivery(compact(), secret=SECRET), changing(change))
    assert (code, causes) == (1, [cause])
    assert how in document["causes"][0]["text"]


def raw_deflate(body):
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


@pytest.mark.parametrize("form", ["raw", "canonical"])
@pytest.mark.parametrize(
    ("compress", "encoding", "how"),
    [
        (gzip.compress, "gzip", "decompressed by gzip"),
        (zlib.compress, "", "decompressed by deflate"),
        (raw_deflate, "deflate", "decompressed by deflate without a header"),
    ],
)
def test_a_body_that_was_compressed(diagnose, form, compress, encoding, how):
    delivery = sign_delivery(compact(), secret=SECRET, signed_content=form)
    code, causes, document = diagnose(delivery, changing(compress, HTTP_CONTENT_ENCODING=encoding))
    assert (code, causes) == (1, ["body_compressed"])
    assert document["causes"][0]["text"].endswith(how)


def test_a_body_that_was_compressed_in_a_way_that_python_does_not_know(diagnose):
    delivery = sign_delivery(compact(), secret=SECRET)
    _, causes, document = diagnose(delivery, changing(lambda body: body[::-1], HTTP_CONTENT_ENCODING="br"))
    assert causes == ["body_compressed"]
    assert "Content-Encoding says br" in document["causes"][0]["text"]


@pytest.mark.parametrize(
    ("compress", "decompress"),
    [
        (partial(gzip.compress, mtime=0), gzip.decompress),
        (zlib.compress, zlib.decompress),
    ],
)
def test_a_body_that_was_decompressed(diagnose, compress, decompress):
    delivery = sign_delivery(compress(compact()), secret=SECRET, event_type="user.created")
    _, causes, document = diagnose(delivery, changing(decompress))
    assert causes == ["body_decompressed"]
    assert "would verify compressed by" in document["causes"][0]["text"]


def test_a_compressed_body_is_decompressed_within_bounds():
    bomb = gzip.compress(bytes(20 * MAX_REWRITTEN))
    assert [how for kind, how, _ in rewritten_bodies(bomb) if kind == "compressed"] == []


@pytest.mark.parametrize(
    ("write", "how"),
    [
        (lambda sent_at: sent_at + 8 * 3_600, "which is 28800 s earlier"),
        (lambda sent_at: sent_at * 1000 + 5, "which is the same time in another form"),
        (lambda sent_at: datetime.fromtimestamp(sent_at, UTC).isoformat(), "which is the same time in another form"),
        (lambda sent_at: format_datetime(datetime.fromtimestamp(sent_at - 9, UTC)), "which is 9 s later"),
        (lambda sent_at: "now", "and the header has something else"),
    ],
)
def test_a_timestamp_that_was_rewritten(diagnose, write, how):
    sent_at = 1_796_000_000
    delivery = sign_delivery(compact(), secret=SECRET, timestamp=sent_at)
    middleware = changing(bytes, HTTP_X_ENVOYOU_TIMESTAMP=str(write(sent_at)))
    _, causes, document = diagnose(delivery, middleware, clock=lambda: sent_at + 20.0)
    assert causes == ["timestamp_rewritten"]
    assert f"it would verify with {sent_at}, {how}" in document["causes"][0]["text"]


def test_a_body_that_middleware_has_read(diagnose):
    def middleware(application):
        def run(environ, start_response):
            environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            # Otherwise, the server would wait for bytes that do not come.
            environ["wsgi.input"] = BytesIO()
            return application(environ, start_response)

        return run

    delivery = sign_delivery(compact(), secret=SECRET)
    code, causes, document = diagnose(delivery, middleware)
    assert (code, causes) == (1, ["body_empty"])
    assert f"Content-Length announces {len(delivery.body)} bytes" in document["causes"][0]["text"]


def test_a_body_that_flask_has_read(diagnose, tmp_path):
    flask, envoyou_flask = pytest.importorskip("flask"), pytest.importorskip("envoyou_flask")
    receiving = Webhooks(secret=SECRET, inbox="memory:", handoff="manual", capture_rejected=tmp_path / "captures")
    site = flask.Flask("site")
    site.before_request(lambda: flask.request.stream.read() and None)
    site.register_blueprint(envoyou_flask.create_blueprint(receiving), url_prefix="/")
    delivery = sign_delivery(sample_event(), secret=SECRET)
    code, causes, document = diagnose(delivery, lambda _: site)
    assert (code, causes) == (1, ["body_empty"])
    assert f"Content-Length announces {len(delivery.body)} bytes" in document["causes"][0]["text"]


def test_a_clock_that_is_wrong(diagnose, run, tmp_path):
    delivery = sign_delivery(sample_event(), secret=SECRET, timestamp=1_796_000_000)
    code, causes, document = diagnose(delivery, clock=lambda: 1_796_001_000.0)
    assert (code, causes, document["reason"]) == (1, ["clock"], "timestamp_out_of_tolerance")
    assert "off by 1000 s" in document["causes"][0]["text"]
    sent_at = delivery.headers["X-EnvoyOU-Timestamp"]
    result = run("--request", str(tmp_path / "captures"), "--at", sent_at)
    assert result.exit_code == 0, result.output
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["verified", *["the", "request", "is", "accepted"]],
        ["note", *["the", "raw", "form", "of", "the", "body", "is", "signed", "with", "secret", "2", "of", "2"]],
    ]


@pytest.mark.parametrize(
    ("secret", "how"),
    [
        (f"{SECRET}\n", "a line feed"),
        (f'"{SECRET}"', "in double quotes"),
        (f"'{SECRET}'", "in single quotes"),
        (f" {SECRET}", "a space before it"),
        (SECRET.removeprefix("whsec_"), "without the prefix"),
    ],
)
def test_a_secret_that_was_copied_wrongly(diagnose, secret, how):
    _, causes, document = diagnose(sign_delivery(sample_event(), secret=secret))
    assert causes == ["secret_differs"]
    assert how in document["causes"][0]["text"]


def test_a_secret_of_ones_own_with_quotes_is_named(run, tmp_path):
    (tmp_path / "capture").write_bytes(b"POST / HTTP/1.1\n\n{}")
    result = run("--request", str(tmp_path / "capture"), "--secret-file", "-", input=f'"{SECRET}"\n')
    assert result.exit_code == 1
    assert "begins with U+0022 (quotation mark): remove it" in result.stderr


def test_a_form_that_is_not_accepted(diagnose, monkeypatch):
    monkeypatch.setenv("ENVOYOU_SIGNED_CONTENT", "raw")
    delivery = sign_delivery(compact(), secret=SECRET, signed_content="canonical", timestamp=1)
    _, causes, document = diagnose(delivery)
    assert causes == ["clock", "canonical_form"]
    assert document["notes"] == ["the canonical form of the body is signed with secret 2 of 2"]


@contextmanager
def nginx(folder, upstream, directives):
    """Run nginx in front of a port, and yield its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = "".join(f"{name}_temp_path {folder};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(f"""
        daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
        events {{}}
        http {{ access_log off; {paths} server {{ listen 127.0.0.1:{port}; location / {{
            proxy_pass http://127.0.0.1:{upstream}; {directives} }} }} }}""")
    process = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL)
    try:
        wait_for(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def wait_for(port, process):
    for _ in range(500):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, "nginx has ended"
        time.sleep(0.01)
    raise AssertionError("nginx does not answer")


@pytest.mark.skipif(NGINX is None and not os.environ.get("CI"), reason="nginx is not installed")
@pytest.mark.parametrize(
    ("directives", "found"),
    [
        ('proxy_set_header X-EnvoyOU-Signature "";', ["header_missing"]),
        (
            'proxy_set_header X-Signature $http_x_envoyou_signature; proxy_set_header X-EnvoyOU-Signature "";',
            ["header_renamed"],
        ),
        (
            "proxy_set_header X-Forwarded-EnvoyOU-Timestamp $http_x_envoyou_timestamp;"
            'proxy_set_header X-EnvoyOU-Timestamp "";',
            ["header_renamed"],
        ),
        (
            'proxy_set_header X-EnvoyOU-Timestamp "$http_x_envoyou_timestamp, $http_x_envoyou_timestamp";',
            ["header_doubled"],
        ),
        (
            'proxy_set_header X-EnvoyOU-Signature "$http_x_envoyou_signature,$http_x_envoyou_signature";',
            ["header_doubled"],
        ),
        ('proxy_set_header X-EnvoyOU-Event-Type "";', ["header_missing"]),
        ('proxy_set_body "$request_body\n";', ["white_space"]),
        ('proxy_set_body "";', ["body_empty"]),
        ("proxy_set_header X-EnvoyOU-Timestamp $msec;", ["timestamp_rewritten"]),
        ("proxy_set_header X-EnvoyOU-Timestamp $time_iso8601;", ["timestamp_rewritten"]),
    ],
)  # fmt: skip
def test_behind_nginx(diagnose, tmp_path, directives, found):
    folder = tmp_path / "nginx"
    folder.mkdir()
    opened = []

    def url(upstream):
        opened.append(nginx(folder, upstream, directives))
        return f"http://127.0.0.1:{opened[0].__enter__()}/"

    try:
        code, causes, document = diagnose(sign_delivery(compact(), secret=SECRET), url=url)
    finally:
        for each in opened:
            each.__exit__(None, None, None)
    assert (code, causes) == (1, found)
    if "Event-Type" not in directives and "body" not in directives:
        assert document["notes"] == [] or "secret 2" in document["notes"][0]


def test_the_text_for_a_terminal(run, tmp_path):
    delivery = sign_delivery(json.dumps(json.loads(compact()), indent=2).encode(), secret=SECRET)
    body = compact()
    capture = (
        b"POST / HTTP/1.1\n" + b"".join(f"{n}: {v}\n".encode() for n, v in delivery.headers.items()) + b"\n" + body
    )
    result = run("--request", "-", input=capture)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["refused", "cause", "to"]
    assert "401 signature_mismatch: The signature does not match the body." in lines[0]
    assert run("--request", "-", "--at", "yesterday", input=capture).exit_code == 2
    assert "cannot read" in run("--request", str(tmp_path / "none")).stderr
    assert "has no captures" in run("--request", str(tmp_path)).stderr
