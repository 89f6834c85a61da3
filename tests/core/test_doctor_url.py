"""`envoyou doctor --url`: faults of the way to the application, with real sockets, certificates and proxies."""

import json
import os
import socket
import ssl
import time
import unicodedata
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from io import BytesIO

import pytest
import trustme

from envoyou_core import Webhooks
from envoyou_core.doctor.endpoint.address import Address, address_findings, address_of, check_connections
from envoyou_core.doctor.endpoint.answers import MEANINGS
from envoyou_core.doctor.endpoint.certificate import Certificate, certificate_findings
from envoyou_core.doctor.endpoint.examination import examine_endpoint
from envoyou_core.doctor.findings import Level
from envoyou_core.wsgi import webhooks_entry
from tests.core.test_verify_command import NGINX, changing, nginx, not_found
from tests.core.web_servers import answering, serving

SECRET = "whsec_of_the_doctor_tests_1234"


@pytest.fixture
def receiving(tmp_path):
    """The application at the URL, and its inbox beside the command."""
    webhooks = Webhooks(secret=SECRET, inbox=f"sqlite:///{tmp_path}/inbox.db", handoff="manual")
    yield webhooks
    webhooks.inbox.close()


@pytest.fixture
def examine(receiving):
    """Serve the application behind a middleware, and return what is found at its URL, but what is ok."""

    def examine(
        middleware=lambda application: application, *, url=None, secret=SECRET, headers=None, keep=(), beside=True
    ):
        application = middleware(webhooks_entry(not_found, receiving, path="/"))
        with ExitStack() as stack:
            if url is None:
                url = f"http://127.0.0.1:{stack.enter_context(serving(application))}/"
            found = list(
                examine_endpoint(
                    url,
                    webhooks=receiving if beside else None,
                    secret=secret,
                    webhook_id="wh_1",
                    headers=headers or {},
                )
            )
        # Whatever a test serves on is a loopback address.
        return [
            (finding.check, finding.level.value, finding.text, finding.advice)
            for finding in found
            if finding.check in keep or (finding.level is not Level.OK and finding.check != "public")
        ]

    return examine


def test_nothing_is_found_at_a_url_that_works_and_nothing_is_left(examine, receiving):
    assert examine() == []
    assert receiving.inbox.list() == []
    assert receiving.inbox.list_rejected() == []


def test_what_is_left_is_named_if_the_inbox_is_elsewhere(examine, receiving):
    for _ in range(2):
        [(check, level, text, _)] = examine(beside=False)
        assert (check, level) == ("rejected", "warning")
        assert "may keep up to" in text
    # The same ones, however often the command runs.
    assert len(receiving.inbox.list_rejected()) == 3
    assert receiving.inbox.list() == []


# The address


def test_a_host_that_does_not_resolve(examine):
    [(check, level, text, advice)] = examine(url="https://no-such-host.invalid/webhooks/envoyou")
    assert (check, level) == ("dns", "problem")
    assert text.startswith("the host no-such-host.invalid does not resolve")
    assert "A or AAAA record" in advice


def test_a_port_that_takes_no_connection(examine):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        [(check, level, text, _)] = examine(url=f"http://127.0.0.1:{port}/")
    assert (check, level) == ("connection", "problem")
    assert f"port {port} of 127.0.0.1 takes no connection" in text


@pytest.mark.parametrize(
    ("ips", "is_encrypted", "found"),
    [
        (("192.0.2.1", "10.0.0.1"), True, {"dns": "ok", "public": "warning"}),
        (("8.8.8.8", "10.0.0.1"), True, {"dns": "ok", "public": "problem"}),
        (("8.8.8.8",), True, {"dns": "ok", "public": "ok"}),
        (("8.8.8.8",), False, {"dns": "ok", "public": "ok", "certificate": "problem"}),
        (("127.0.0.1", "::1"), False, {"dns": "ok", "public": "warning"}),
        (("fe80::1%eth0",), True, {"dns": "ok", "public": "warning"}),
    ],
)
def test_addresses_that_the_platform_cannot_reach(ips, is_encrypted, found):
    findings = address_findings(Address("shop.example", 443, is_encrypted, ips))
    assert {finding.check: finding.level.value for finding in findings} == found


def test_an_address_among_several_that_takes_no_connection():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = list(check_connections(Address("localhost", port, False, ("127.0.0.1", "127.0.0.2"))))
        # A documentation prefix: no machine has a route to it, or it is refused.
        unreachable = list(check_connections(Address("localhost", port, False, ("127.0.0.1", "::ffff:0:1%none"))))
    assert [finding.level.value for finding in found] == ["problem", "ok"]
    assert "so some deliveries fail" in found[0].text
    assert unreachable[-1].level is Level.OK


def test_the_port_of_the_scheme_is_the_default():
    assert (address_of("http://127.0.0.1/").port, address_of("https://127.0.0.1/").port) == (80, 443)


# The certificate


@pytest.fixture
def authority(tmp_path, monkeypatch):
    """An authority that this process trusts while the test runs."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return authority


@contextmanager
def encrypted(receiving, authority, *names, **options):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, **options).configure_cert(context)
    with serving(webhooks_entry(not_found, receiving, path="/"), context) as port:
        yield f"https://127.0.0.1:{port}/"


def test_a_certificate_that_is_accepted(examine, receiving, authority):
    with encrypted(receiving, authority, "127.0.0.1") as url:
        found = examine(url=url, keep=["certificate", "body"])
    assert [(check, level) for check, level, *_ in found] == [("certificate", "ok"), ("body", "ok")]
    assert "TLSv1" in found[0][2]


@pytest.mark.parametrize(
    ("names", "options", "text"),
    [
        (["127.0.0.1"], {"not_after": datetime.now(UTC) - timedelta(days=1)}, "certificate has expired"),
        (["shop.example"], {}, "IP address mismatch"),
    ],
)
def test_a_certificate_that_is_not_accepted(examine, receiving, authority, names, options, text):
    with encrypted(receiving, authority, *names, **options) as url:
        found = examine(url=url, keep=["answers"])
    assert (found[0][:2], text in found[0][2]) == (("certificate", "problem"), True), found
    # What reveals nothing is checked all the same.
    assert [(check, level) for check, level, *_ in found[1:]] == [
        ("answers", "ok"),
        ("answers", "ok"),
        ("signature", "warning"),
    ]
    assert receiving.inbox.list_rejected() == []


def test_a_certificate_of_an_unknown_authority(examine, receiving, monkeypatch):
    with encrypted(receiving, trustme.CA(), "127.0.0.1") as url:
        [(check, level, text, advice), _] = examine(url=url)
    assert (check, level) == ("certificate", "problem")
    assert "unable to get local issuer certificate" in text
    assert "intermediate certificates" in advice


def test_a_server_that_does_not_encrypt(examine, receiving):
    with serving(webhooks_entry(not_found, receiving, path="/")) as port:
        found = examine(url=f"https://127.0.0.1:{port}/")
    assert (found[0][0], found[0][1]) == ("certificate", "problem")
    assert "the handshake failed" in found[0][2]
    assert found[1][2].startswith("no response from")


@pytest.mark.parametrize(("days", "level"), [(90, "ok"), (20, "warning")])
def test_the_days_that_are_left(days, level):
    [finding] = certificate_findings(Certificate((days + 0.5) * 86_400.0, version="TLSv1.3"), now=lambda: 0.0)
    assert (finding.level, f"for {days} more days" in finding.text) == (level, True)


# The answers


@pytest.mark.parametrize("status", [301, 308])
def test_a_redirect(examine, status):
    with answering(status, lambda: {"Location": "https://shop.example/login"}) as url:
        [(check, level, text, advice)] = examine(url=url)
    assert (check, level) == ("redirects", "problem")
    assert f"answered {status}, a redirect to https://shop.example/login" in text
    assert advice.startswith("register https://shop.example/login")


@pytest.mark.parametrize("status", [*sorted(MEANINGS), 418])
def test_an_answer_that_is_not_that_of_the_contract(examine, status):
    with answering(status, body=b'{"error": {"code": 1}}' if status == 401 else b"<h1>?</h1>") as url:
        [(check, level, text, advice)] = examine(url=url)
    assert (check, level) == ("answers", "problem")
    assert f"a delivery with a wrong signature is answered {status} instead of 401" in text
    assert advice


def answering_get(application):
    def run(environ, start_response):
        if environ["REQUEST_METHOD"] == "GET":
            start_response("200 OK", [("Content-Type", "text/html")])
            return [b"<h1>Shop</h1>"]
        return application(environ, start_response)

    return run


def refusing_large(application):
    def run(environ, start_response):
        if int(environ.get("CONTENT_LENGTH") or 0) > 10_000:
            environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            start_response("413 Content Too Large", [])
            return []
        return application(environ, start_response)

    return run


def with_date(seconds):
    def middleware(application):
        def run(environ, start_response):
            date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + seconds))
            return application(
                environ, lambda status, headers, *rest: start_response(status, [*headers, ("Date", date)], *rest)
            )

        return run

    return middleware


@pytest.mark.parametrize(
    ("middleware", "check", "level", "text"),
    [
        (answering_get, "answers", "warning", "a GET is answered 200 instead of 405"),
        (refusing_large, "size", "warning", "a body of 256 KiB is answered 413"),
        (with_date(-1000), "clock", "problem", "s ahead of that of http://127.0.0.1"),
    ],
)
def test_other_faults_in_front_of_the_application(examine, middleware, check, level, text):
    [found] = examine(middleware)
    assert found[:2] == (check, level)
    assert text in found[2]


def test_a_slow_answer_is_named(examine, monkeypatch):
    monkeypatch.setattr("envoyou_core.doctor.endpoint.answers.SLOW", 0.0)
    [(check, level, text, _)] = examine()
    assert (check, level) == ("answers", "warning")
    assert text.startswith("the answer took")


# Bodies and headers


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda body: json.dumps(json.loads(body), separators=(",", ":")).encode(), "parses the JSON"),
        (bytes.strip, "removes white space around the body"),
        (lambda body: unicodedata.normalize("NFC", body.decode()).encode(), "normalizes or encodes characters anew"),
        (lambda body: body.replace(b"], ", b"],"), "rewrites some of them"),
    ],
)
def test_a_proxy_that_changes_bodies(examine, receiving, change, text):
    def tolerant(body):
        try:
            return change(body)
        except ValueError:
            return body

    [(check, level, found, _)] = examine(
        lambda application: (
            lambda environ, start: (
                changing(tolerant)(application)(environ, start)
                if environ["REQUEST_METHOD"] == "POST"
                else application(environ, start)
            )
        )
    )
    assert (check, level) == ("body", "problem")
    assert text in found
    assert receiving.inbox.list_rejected() == []


def dropping(name):
    key = f"HTTP_{name.upper().replace('-', '_')}"

    def middleware(application):
        return lambda environ, start: application({k: v for k, v in environ.items() if k != key}, start)

    return middleware


@pytest.mark.parametrize("name", ["X-EnvoyOU-Signature", "X-EnvoyOU-Timestamp"])
def test_a_proxy_that_drops_a_signed_header(examine, name):
    [(check, level, text, advice)] = examine(dropping(name))
    assert (check, level) == ("signature", "problem")
    assert name in text
    assert "envoyou verify" in advice


@pytest.mark.parametrize("name", ["X-EnvoyOU-Webhook-ID", "X-EnvoyOU-Event-Type"])
def test_a_proxy_that_drops_another_header(examine, receiving, name):
    [(check, level, text, _)] = examine(dropping(name))
    assert (check, level) == ("headers", "problem")
    assert f"drops a header: the header {name} is missing" in text
    assert receiving.inbox.list() == []


@pytest.mark.skipif(NGINX is None and not os.environ.get("CI"), reason="nginx is not installed")
def test_nginx_that_drops_a_header_and_limits_bodies(examine, receiving, tmp_path):
    directives = 'proxy_set_header X-EnvoyOU-Event-Type ""; client_max_body_size 100k;'
    with (
        serving(webhooks_entry(not_found, receiving, path="/")) as upstream,
        nginx(tmp_path, upstream, directives) as port,
    ):
        found = examine(url=f"http://127.0.0.1:{port}/")
    assert [(check, level) for check, level, *_ in found] == [("size", "warning"), ("headers", "problem")]


def test_another_secret(examine):
    [(check, level, text, _)] = examine(secret="whsec_of_another_endpoint_1234")
    assert (check, level) == ("signature", "problem")
    assert "another secret" in text


def test_custom_headers_must_be_given(tmp_path, examine, receiving):
    required = Webhooks(
        secret=SECRET, inbox=receiving.inbox, handoff="manual", endpoint_headers={"X-Shop": "custom value"}
    )
    with serving(webhooks_entry(not_found, required, path="/")) as port:
        for headers, expected in (({}, ["problem"]), ({"X-Shop": "custom value"}, [])):
            found = list(
                examine_endpoint(
                    f"http://127.0.0.1:{port}/", webhooks=required, secret=SECRET, webhook_id="wh_1", headers=headers
                )
            )
            assert [it.level.value for it in found if it.level is Level.PROBLEM] == expected
            if not headers:
                assert "requires X-Shop" in found[-1].text
                assert "--headers-file" in found[-1].advice


def test_an_application_that_accepts_what_is_no_event(examine):
    def accepting(application):
        def run(environ, start_response):
            if b"doctor" in (body := environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))):
                start_response("200 OK", [])
                return []
            return application({**environ, "wsgi.input": BytesIO(body)}, start_response)

        return run

    [(check, level, text, _)] = examine(accepting)
    assert (check, level) == ("signature", "problem")
    assert "answered 200 instead of 400" in text


def test_the_canonical_form_alone(tmp_path):
    webhooks = Webhooks(
        secret=SECRET, inbox=f"sqlite:///{tmp_path}/inbox.db", handoff="manual", signed_content=["canonical"]
    )
    with serving(webhooks_entry(not_found, webhooks, path="/")) as port:
        found = list(
            examine_endpoint(
                f"http://127.0.0.1:{port}/", webhooks=webhooks, secret=SECRET, webhook_id="wh_1", headers={}
            )
        )
    webhooks.inbox.close()
    assert {"signature", "headers"} <= {it.check for it in found if it.level is Level.OK}
    assert "body" not in {it.check for it in found}
