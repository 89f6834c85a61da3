"""The log records of the notices: their levels and texts, and no secrets in them."""

import io
import logging
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

import envoyou_core
from envoyou_core import PermanentError, RetryPolicy, WebhookRequest, Webhooks, observability
from envoyou_core.inbox import Added, Status
from envoyou_core.observability import (
    Accepted,
    AlertFired,
    AlertNotSent,
    AlertResolved,
    AlertsNotEvaluated,
    CaptureFailed,
    Claimed,
    CountsNotStored,
    DatabaseFailed,
    HandlerAwaited,
    HandlerDropped,
    HandlerFailed,
    HandlerOverdue,
    HandlerPostponed,
    HandlersBounded,
    HandlerSkipped,
    HandlerSucceeded,
    HookFailed,
    InboxDown,
    InboxUp,
    LeaseLost,
    LeasesEnded,
    MoveRefused,
    NoHandlers,
    NonceStoreFailed,
    NoSpool,
    Notice,
    Notices,
    Rejected,
    RejectedNotKept,
    RejectedPruned,
    RetentionApplied,
    Settled,
    Spooled,
    SpoolFailed,
    WakeFailed,
    WorkerFailed,
    WorkerInterrupted,
    WorkerStarted,
    WorkerStopped,
    log_notice,
)
from envoyou_core.testing import sample_event, sign_delivery

PACKAGE = Path(envoyou_core.__file__).parent
KINDS = [
    value
    for name in observability.__all__
    if isinstance(value := getattr(observability, name), type) and issubclass(value, Notice) and value is not Notice
]


def settled(status, retry_in=None, error=None):
    return Settled("evt_1", "user.created", status, 2, retry_in, error, 0.0125)


RECORDS = [
    (Accepted("evt_1", "user.created", Added.NEW), "INFO", "accepted evt_1 (user.created)"),
    (
        Accepted("evt_1", "user.created", Added.DUPLICATE),
        "INFO",
        "accepted evt_1 (user.created) again: duplicate, already stored",
    ),
    (
        Accepted("evt_1", "user.created", Added.BODY_DIFFERS),
        "WARNING",
        "accepted evt_1 (user.created) again with a different body: the stored body is kept",
    ),
    (
        Accepted("evt_1", "user.created", Added.REARMED),
        "WARNING",
        "accepted evt_1 (user.created) again: the event was dead and gets new attempts",
    ),
    (Rejected(401, "signature_mismatch", "why"), "WARNING", "answered 401: signature_mismatch (why)"),
    (Rejected(503, "unavailable", "why"), "ERROR", "answered 503: unavailable (why)"),
    (Claimed("default", 3, 0.0125), "DEBUG", "inbox default: claimed 3 events, 0.013 s"),
    (CaptureFailed("why"), "WARNING", "a refused request was not captured: why"),
    (
        NonceStoreFailed("why"),
        "ERROR",
        "nonce store failed (why): nonces are not checked, duplicates are recognised by event id",
    ),
    (
        HandlerFailed("evt_1", "user.created", "welcome", 2, ValueError("why"), "Traceback:\n  ValueError: why\n"),
        "WARNING",
        "handler welcome failed for event evt_1 (user.created), attempt 2\n  Traceback:\n    ValueError: why",
    ),
    (
        DatabaseFailed("evt_1", "user.created", "welcome", "sqlite:///a.db", "locked", 1.0),
        "WARNING",
        "database sqlite:///a.db failed at handler welcome for event evt_1 (user.created), retrying in 1 s, not "
        "counted as an attempt: locked",
    ),
    (
        DatabaseFailed("evt_1", "user.created", "welcome", "sqlite:///a.db", "lost", 2.0, interruption=2),
        "WARNING",
        "database sqlite:///a.db failed at handler welcome for event evt_1 (user.created), retrying in 2 s, not "
        "counted as an attempt: lost (interruption 2 of this event)",
    ),
    (
        HandlerPostponed("evt_1", "user.created", "welcome", 2, 30.0, "RetryLater: rate limited"),
        "INFO",
        "handler welcome postponed event evt_1 (user.created) at attempt 2, by at least 30 s: RetryLater: rate limited",
    ),
    (
        HandlerOverdue("evt_1", "user.created", "welcome", 2.5),
        "ERROR",
        "handler welcome exceeded its time limit of 2.5 s for event evt_1 (user.created) and is still running",
    ),
    (
        HandlerAwaited("bill", "evt_1", "user.created"),
        "WARNING",
        "event evt_1 (user.created) waits for a process that has the handler bill, as may others; this process does "
        "not have it",
    ),
    (
        HandlerDropped("bill", "evt_1", "user.created"),
        "WARNING",
        "handler bill is not called for event evt_1 (user.created), as for others: no live process has it any longer",
    ),
    (
        HandlerSucceeded("evt_1", "user.created", "welcome", 2, 0.0125),
        "DEBUG",
        "handler welcome succeeded for event evt_1 (user.created), 0.013 s",
    ),
    (
        HandlerSkipped("evt_1", "user.created", "welcome"),
        "INFO",
        "handler welcome skipped event evt_1 (user.created): a newer event of the same object has been applied",
    ),
    (
        HandlersBounded("default", 2, 6),
        "WARNING",
        "default has at most 6 connections in this process, because of its connection pool or of the limit of its "
        "role: no more than 2 handlers share the inbox's transaction at once, so that acceptance and settlements keep "
        "theirs",
    ),
    (
        RetentionApplied("default", 3, 2, 1, 4),
        "INFO",
        "retention of default deleted 3 payloads, 2 events, 1 watermarks, 4 rejected deliveries",
    ),
    (
        Rejected(400, "missing_header", "why", kept=True),
        "WARNING",
        "answered 400: missing_header (why); the delivery is genuine and kept as a rejected one",
    ),
    (
        RejectedNotKept("default", "why"),
        "ERROR",
        "inbox of default did not keep a genuine delivery that was rejected: why",
    ),
    (
        RejectedPruned("default", 3),
        "ERROR",
        "inbox of default deleted its 3 oldest rejected deliveries: there were too many",
    ),
    (settled(Status.PROCESSED), "INFO", "processed evt_1 (user.created) after attempt 2, 0.013 s"),
    (settled(Status.IGNORED), "WARNING", "ignored evt_1 (user.created) after attempt 2, 0.013 s"),
    (
        settled(Status.FAILED, 4.0, "ValueError: why"),
        "WARNING",
        "failed evt_1 (user.created) after attempt 2, 0.013 s; next attempt in 4 s: ValueError: why",
    ),
    (
        settled(Status.DEAD, None, "ValueError: why"),
        "ERROR",
        "dead evt_1 (user.created) after attempt 2, 0.013 s: ValueError: why",
    ),
    (
        LeasesEnded("default", 3, "4711, 4712"),
        "WARNING",
        "inbox default: 3 events are due again, because the process that handled them is gone (pid 4711, 4712)",
    ),
    (
        LeaseLost("evt_1", "user.created"),
        "ERROR",
        "lease of event evt_1 (user.created) passed to another worker before the attempt ended",
    ),
    (
        NoSpool("default"),
        "WARNING",
        "remote inbox of default without a spool: events delivered during an outage longer than about 15 s are lost. "
        "Set spool to a local file, or to False if that is intended",
    ),
    (
        InboxDown("default", "why"),
        "ERROR",
        "inbox of default is down (why): events go to the spool",
    ),
    (Spooled("evt_1", "user.created"), "INFO", "spooled evt_1 (user.created)"),
    (InboxUp("default", 5), "WARNING", "inbox of default is up again: 5 events moved from the spool"),
    (
        MoveRefused("evt_1", "user.created", "ValueError: why", 5.0),
        "ERROR",
        "inbox refused evt_1 (user.created), which stays in the spool, retrying in 5 s: ValueError: why",
    ),
    (SpoolFailed("default", "why", 0.5), "ERROR", "spool of default cannot be emptied, retrying in 0.5 s: why"),
    (
        SpoolFailed("default", "why", None),
        "ERROR",
        "spool of default cannot be emptied, retrying at the next drain: why",
    ),
    (
        WorkerStarted("default", "thread", "sqlite:////srv/app/envoyou.db", ("welcome", "audit")),
        "INFO",
        "worker default started (thread), inbox sqlite:////srv/app/envoyou.db, handlers welcome, audit",
    ),
    (
        WorkerStarted("default", "loop", "memory:", tuple("abcdefghijklmnopqrstuvw")),
        "INFO",
        "worker default started (loop), inbox memory:, "
        "handlers a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t and 3 more",
    ),
    (
        NoHandlers("default"),
        "ERROR",
        "no handler is registered for default in this process: events are stored and stay in the inbox. The module "
        "that registers the handlers may not be imported",
    ),
    (
        WorkerInterrupted("default", 2),
        "WARNING",
        "worker default was stopped or frozen 2 times while events were due, and events may stay unprocessed: "
        "the host does not run it between requests, or a handler blocks its event loop. On such a host, set "
        "handoff='manual' and call drain() on a schedule, or run `envoyou worker` elsewhere; see the page "
        "'Serverless' of the documentation",
    ),
    (WorkerStopped("default", 2), "INFO", "worker default stopped, 2 events unfinished"),
    (
        WorkerFailed("default", "why", 0.5),
        "ERROR",
        "worker default cannot start or use the inbox, retrying in 0.5 s: why",
    ),
    (
        WorkerFailed("default", "why", None),
        "ERROR",
        "worker default cannot start or use the inbox, retrying at the next event: why",
    ),
    (
        HookFailed("tell", "evt_1", ValueError("why"), "Traceback:\n  ValueError: why\n"),
        "ERROR",
        "on_dead hook tell failed for event evt_1\n  Traceback:\n    ValueError: why",
    ),
    (WakeFailed("default", "why"), "ERROR", "handoff of default failed, the event stays in the inbox: why"),
    (AlertFired("default", "dead", 3, 0, "3 events died"), "ERROR", "alert dead of default fired: 3 events died"),
    (
        AlertResolved("default", "disk", 0.2, 0.1, "20 % are free", host="web-1"),
        "WARNING",
        "alert disk of default resolved on web-1: 20 % are free",
    ),
    (AlertsNotEvaluated("default", "why"), "DEBUG", "alerts of default were not evaluated: why"),
    (
        AlertNotSent("default", "dead", "e-mail", "why", 10.0),
        "ERROR",
        "alert dead of default was not sent to e-mail, retrying in 10 s: why",
    ),
    (
        AlertNotSent("default", "dead", "e-mail", "why", None),
        "ERROR",
        "alert dead of default was not sent to e-mail, giving up: why",
    ),
    (
        CountsNotStored("default", "why"),
        "WARNING",
        "counts of default were not stored and are kept in memory for now: why",
    ),
]


def records_of_this_thread(caplog):
    """The records of the library, without what threads of earlier tests still write."""
    this_thread = threading.get_ident()
    return [record for record in caplog.records if record.thread == this_thread and record.name == "envoyou"]


@pytest.mark.parametrize(("notice", "level", "text"), RECORDS, ids=lambda value: type(value).__name__)
def test_each_notice_has_its_line_and_level(notice, level, text, caplog):
    caplog.set_level(logging.DEBUG, "envoyou")
    log_notice(notice)
    [record] = records_of_this_thread(caplog)
    assert (record.name, record.levelname) == ("envoyou", level)
    assert record.getMessage() == text


def test_the_data_of_a_record_that_is_not_written_is_not_built(caplog, monkeypatch):
    caplog.set_level(logging.WARNING, "envoyou")
    monkeypatch.setattr(Accepted, "fields", lambda _: pytest.fail("it was built"))
    log_notice(Accepted("evt_1", "user.created", Added.NEW))
    assert records_of_this_thread(caplog) == []


def test_every_kind_of_notice_is_tested():
    assert {type(notice) for notice, _, _ in RECORDS} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_notice_is_frozen_and_has_no_dict(kind):
    notice = next(notice for notice, _, _ in RECORDS if type(notice) is kind)
    assert kind.__dataclass_params__.frozen
    assert not hasattr(notice, "__dict__")


def test_a_record_has_the_template_of_its_kind_and_the_data_of_the_notice(caplog):
    error = ValueError("why")
    log_notice(replace(settled(Status.FAILED, 4.0, "ValueError: why"), exception=error, traceback="Traceback"))
    [record] = records_of_this_thread(caplog)
    assert record.msg == Settled.template
    assert record.envoyou == {
        "notice": "Settled",
        "traceparent": None,
        "retry_in": 4.0,
        "is_postponed": False,
        "is_reported": False,
        "created": None,
        "received_at": None,
        "settled_at": None,
    }


def test_the_data_of_a_record_is_redacted_and_cut(caplog):
    log_notice(Rejected(401, "signature_mismatch", "password=private", "whsec_private\n", "/" * 10_000))
    [record] = records_of_this_thread(caplog)
    assert record.envoyou == {
        "notice": "Rejected",
        "status": 401,
        "detail": "password=[redacted]",
        "path": "/" * 200,
        "peer": None,
        "kept": False,
    }
    assert (record.reason, record.webhook_id) == ("signature_mismatch", "[redacted]")
    assert record.error == {"message": "password=[redacted]", "stack": None}


def test_a_failed_handler_is_logged_with_a_redacted_traceback_and_without_the_exception_itself(caplog):
    """Formatters for JSON and for the console would write `exc_info` without redaction."""
    error = ValueError("password=hunter2-battery")
    log_notice(HandlerFailed("evt_1", "user.created", "welcome", 1, error))
    [record] = records_of_this_thread(caplog)
    assert (record.exc_info, record.exc_text) == (None, None)
    assert record.getMessage().endswith("attempt 1\n  ValueError: password=[redacted]")


@pytest.mark.parametrize(("status", "lines"), [(Status.DEAD, ["  ValueError: why"]), (Status.FAILED, [])])
def test_only_a_dead_event_is_logged_with_the_traceback_of_its_last_attempt(status, lines, caplog):
    log_notice(replace(settled(status), exception=ValueError("why")))
    [record] = records_of_this_thread(caplog)
    assert record.getMessage().splitlines()[1:] == lines


@pytest.mark.parametrize(("attempts", "error"), [(1, ValueError("why")), (3, PermanentError("why"))])
def test_the_log_of_a_dying_event_has_its_traceback_once_as_an_error(attempts, error, caplog):
    webhooks = Webhooks(
        secret="whsec_test", inbox="memory:", handoff="manual", retry=RetryPolicy(max_attempts=attempts)
    )

    @webhooks.on("*")
    def fail(event):
        raise error

    delivery = sign_delivery(sample_event(), secret="whsec_test")
    webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
    webhooks.drain()
    with_traceback = [record.levelname for record in caplog.records if "Traceback" in record.getMessage()]
    assert with_traceback == ["ERROR"]


def test_the_traceback_of_a_handler_that_is_not_the_last_one_is_logged_once_as_well(caplog):
    webhooks = Webhooks(secret="whsec_test", inbox="memory:", handoff="manual", retry=RetryPolicy(max_attempts=1))
    webhooks.on("*", name="fails")(lambda event: 1 / 0)
    webhooks.on("*", name="succeeds")(lambda event: None)
    settled = []
    webhooks.subscribe(lambda notice: isinstance(notice, Settled) and settled.append(notice))
    delivery = sign_delivery(sample_event(), secret="whsec_test")
    webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
    webhooks.drain()
    with_traceback = [record.envoyou["notice"] for record in caplog.records if "Traceback" in record.getMessage()]
    assert with_traceback == ["HandlerFailed"]
    assert [record.levelname for record in caplog.records if record.envoyou["notice"] == "Settled"] == ["ERROR"]
    # Listeners have it in both.
    assert (settled[0].is_reported, type(settled[0].exception)) == (True, ZeroDivisionError)


def test_an_event_that_is_tried_again_is_logged_with_the_traceback_of_its_handler(caplog):
    webhooks = Webhooks(secret="whsec_test", inbox="memory:", handoff="manual", retry=RetryPolicy(max_attempts=2))
    webhooks.on("*")(lambda event: 1 / 0)
    delivery = sign_delivery(sample_event(), secret="whsec_test")
    webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
    webhooks.drain()
    with_traceback = [record.envoyou["notice"] for record in caplog.records if "Traceback" in record.getMessage()]
    assert with_traceback == ["HandlerFailed"]


def test_a_dead_event_has_the_exception_of_the_last_handler_that_failed():
    webhooks = Webhooks(secret="whsec_test", inbox="memory:", handoff="manual", retry=RetryPolicy(max_attempts=1))
    errors = {"first": ValueError("first"), "second": ValueError("second")}
    received = []
    webhooks.subscribe(lambda notice: isinstance(notice, Settled) and received.append(notice))

    def fail(name):
        raise errors[name]

    webhooks.on("*", name="first")(lambda event: fail("first"))
    webhooks.on("*", name="second")(lambda event: fail("second"))
    webhooks.on("*", name="third")(lambda event: None)
    delivery = sign_delivery(sample_event(), secret="whsec_test")
    webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
    webhooks.drain()
    [dead] = received
    assert (dead.status, dead.exception) == (Status.DEAD, errors["second"])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("wh_1\nERROR forged", "'wh_1\ufffdERROR forged'"),
        ("\x1b[31m\u2028", "'\ufffd[31m\ufffd'"),
        ("' peer '", "\"' peer '\""),
        ("whsec_private", "'[redacted]'"),
        ("token=private", "'token=[redacted]'"),
        ("x" * 10_000, repr("x" * 200)),
        ("\ud83d", "'\ufffd'"),
    ],
)
def test_text_from_a_sender_cannot_pass_for_another_line(value, shown, caplog):
    log_notice(Rejected(401, "signature_mismatch", "why", value, value, value))
    [record] = records_of_this_thread(caplog)
    origin = f", webhook id {shown}, path {shown}, peer {shown}"
    assert record.getMessage() == "answered 401: signature_mismatch (why)" + origin


IMPORT_ALL = """
import importlib, logging, logging.config, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
assert not [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "envoyou"]
logging.config.dictConfig(
    {
        "version": 1,
        "handlers": {"out": {"class": "logging.StreamHandler", "stream": sys.stdout}},
        "root": {"handlers": ["out"]},
    }
)
from envoyou_core import WebhookRequest, Webhooks
Webhooks(secret="whsec_test", inbox="memory:", handoff="manual").receive(WebhookRequest("GET", b""))
"""


def test_a_logging_configuration_after_the_import_does_not_disable_the_loggers():
    modules = [".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in PACKAGE.rglob("[!_]*.py")]
    ran = subprocess.run([sys.executable, "-c", IMPORT_ALL, *modules], capture_output=True, text=True, timeout=60)
    assert ran.stdout.startswith("answered 405: method_not_allowed"), ran.stderr


@pytest.fixture
def disabled(monkeypatch):
    for name in ("envoyou", "envoyou.handlers"):
        monkeypatch.setattr(logging.getLogger(name), "disabled", True)


def start_worker():
    started = threading.Event()
    webhooks = Webhooks(secret="whsec_test", inbox="memory:")
    webhooks.on("*", name="handle")(lambda event: None)
    webhooks.subscribe(lambda notice: isinstance(notice, WorkerStarted) and started.set())
    webhooks.start()
    assert started.wait(30)
    webhooks.stop()


@pytest.mark.usefixtures("disabled")
def test_a_worker_reports_disabled_loggers_on_standard_error(capsys):
    start_worker()
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        "envoyou: the logger 'envoyou' is disabled",
        "envoyou: the logger 'envoyou.handlers' is disabled",
    ]
    assert all('"disable_existing_loggers": False' in line for line in lines)


@pytest.mark.usefixtures("disabled")
@pytest.mark.parametrize("stderr", [None, io.StringIO()], ids=["missing", "closed"])
def test_a_worker_starts_without_standard_error(monkeypatch, stderr):
    if stderr is not None:
        stderr.close()
    monkeypatch.setattr(sys, "stderr", stderr)
    start_worker()


def test_a_logger_that_is_silent_on_purpose_is_not_reported(monkeypatch, capsys):
    log = logging.getLogger("envoyou")
    monkeypatch.setattr(log, "propagate", False)
    monkeypatch.setattr(logging.getLogger("envoyou_of_another"), "disabled", True)
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    start_worker()
    assert capsys.readouterr().err == ""


def test_each_listener_receives_every_notice():
    received = []
    notices = Notices()
    notices.subscribe(lambda notice: received.append(("first", notice)))
    notices.subscribe(lambda notice: received.append(("second", notice)))
    notice = WorkerStarted("default", "thread", "memory:")
    notices.emit(notice)
    assert received == [("first", notice), ("second", notice)]


def test_nothing_secret_is_logged_from_acceptance_to_the_last_attempt(caplog):
    caplog.set_level(logging.DEBUG)
    webhooks = Webhooks(secret="whsec_private", inbox="memory:", handoff="manual", retry=RetryPolicy(max_attempts=1))

    @webhooks.on("user.created")
    def fails(event):
        raise ValueError("why")

    event = sample_event(id="evt_1", object={"email": "private@example.com"})
    secrets = ["whsec_private", "private@example.com"]
    for secret, body in (("whsec_private", event), ("whsec_other", event), ("whsec_private", b'{"private@example.com')):
        delivery = sign_delivery(body, secret=secret)
        secrets.append(delivery.headers["X-EnvoyOU-Signature"])
        secrets.append(delivery.headers["X-EnvoyOU-Nonce"])
        webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
    webhooks.drain()
    assert len([record for record in caplog.records if record.name.startswith("envoyou")]) == 5
    for secret in secrets:
        assert secret not in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_no_notice_has_a_field_for_a_secret_or_a_body(kind):
    assert not {"secret", "signature", "body", "event", "data", "payload"} & kind.__dataclass_fields__.keys()
