"""Redaction: errors put no secrets, payloads or forged lines into the log or the inbox."""

import base64
import io
import json
import logging
from contextlib import contextmanager
from urllib.parse import quote

import pydantic
import pytest
import sqlalchemy
from msgspec.structs import asdict

from envoyou_core import Webhooks, redaction
from envoyou_core.http import WebhookRequest
from envoyou_core.inbox.records import Added
from envoyou_core.observability import Accepted, Notices, WorkerStarted, log_notice
from envoyou_core.redaction import redact
from envoyou_core.retry import RetryPolicy
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_core.worker.failures import failure_of

SECRET = "whsec_Zm9y+Z2V0/bWUtbm90"
EMAIL = "ada.lovelace@example.com"
EVENT = sample_event(
    id="evt_1",
    object={
        "id": "user_1",
        "email": EMAIL,
        "surname": "Byron-Noël",
        "phone": 4915112345678,
        "pin": "4711",
        "addresses": [{"street": "St James's Square 12", "city": "London"}],
    },
)
PRIVATE = (EMAIL, "Byron-No", "4915112345678", "4711", "James's Square", "London")


@pytest.fixture
def log():
    """The output of a standard formatter for the records of all loggers of the library."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("envoyou")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(level)


class Account(pydantic.BaseModel):
    email: int


def a_model_that_does_not_match(event):
    Account.model_validate(event.data.object | {"email": f"mailto:{EMAIL.upper()} with a lot of text"})


@contextmanager
def connection_in_memory():
    engine = sqlalchemy.create_engine("sqlite://")
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def a_statement_with_parameters(event):
    with connection_in_memory() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE user (email TEXT PRIMARY KEY)"))
        rows = [{"email": EMAIL.title()}] * 2
        connection.execute(sqlalchemy.text("INSERT INTO user VALUES (:email)"), rows)


def a_statement_with_literals(event):
    with connection_in_memory() as connection:
        connection.execute(sqlalchemy.text(f"INSERT INTO\nuser VALUES ('{EMAIL.title()}')"))


def a_key(event):
    {}[event.data.object["email"]]


def a_value(event):
    int(event.data.object["addresses"][0]["street"])


def a_member_named_like_a_secret(event):
    raise ValueError(f"wrong: {event.data.object['pin']}")


def a_cause(event):
    try:
        a_key(event)
    except KeyError as error:
        raise RuntimeError("cannot save") from error


def a_context(event):
    try:
        a_key(event)
    except KeyError:
        raise RuntimeError("cannot save")  # noqa: B904 - the implicit context is the case


def a_group(event):
    inner = ExceptionGroup("inner", [KeyError(EMAIL), ValueError(repr(event.data.object))])
    raise ExceptionGroup("outer", [inner, OSError(event.body)])


def a_note(event):
    error = ValueError("no")
    error.add_note(f"with {EMAIL}\nERROR envoyou: forged")
    raise error


def an_exit(event):
    raise SystemExit(f"no account for {EMAIL}")


def megabytes(event):
    raise ValueError(event.body.decode() * 1_000 + EMAIL)


FAILURES = [
    a_model_that_does_not_match,
    a_statement_with_parameters,
    a_statement_with_literals,
    a_key,
    a_value,
    a_member_named_like_a_secret,
    a_cause,
    a_context,
    a_group,
    a_note,
    an_exit,
    megabytes,
]


@pytest.mark.parametrize("handler", FAILURES, ids=lambda handler: handler.__name__)
def test_a_failing_handler_writes_nothing_private_to_the_log_or_the_inbox(handler, log):
    webhooks = Webhooks(secret=SECRET, inbox="memory:", handoff="manual", retry=RetryPolicy(max_attempts=1))
    webhooks.on("user.created", name="keeps")(handler)
    webhooks.on_dead(lambda event, error: handler(event))
    delivery = sign_delivery(EVENT, secret=SECRET)
    assert webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body)).status == 200
    assert webhooks.drain() == 1
    record = webhooks.inbox.get("evt_1")
    written = log.getvalue() + json.dumps([asdict(attempt) for attempt in record.history], default=str)
    assert "handler keeps failed for event evt_1" in written
    assert "on_dead hook " in written
    assert "Traceback (most recent call last)" in written or handler is megabytes
    for private in PRIVATE:
        assert private.lower() not in written.lower()
    assert len(written) < 30_000


FORGED = "\nERROR envoyou: forged"
CONTROLS = ("\r", "\x1b[2J", "\x00", "\x85", "\u2028", "\u202e", "\u2066", "\ud83d")


def test_the_text_of_an_exception_cannot_forge_a_line_of_the_log(log):
    webhooks = Webhooks(secret=SECRET, inbox="memory:", handoff="manual", retry=RetryPolicy(max_attempts=1))

    @webhooks.on("*", name=f"keeps{FORGED}")
    def fails(event):
        raise ValueError(FORGED + FORGED.join(CONTROLS) + FORGED) from KeyError(FORGED)

    @webhooks.on_dead
    def hook(event, error):
        raise OSError(FORGED)

    delivery = sign_delivery(EVENT, secret=SECRET)
    webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
    webhooks.drain()
    assert "forged" in log.getvalue()
    for line in log.getvalue().split("\n"):
        assert not line.startswith("ERROR envoyou: forged")
        # Only the first line of a record is not indented.
        assert line.startswith(("INFO envoyou: ", "WARNING envoyou: ", "ERROR envoyou: ", "  ")) or not line
    assert not any(control in log.getvalue() for control in CONTROLS)


def test_a_failing_listener_is_logged_without_secrets(log):
    def listener(notice):
        raise RuntimeError(f"cannot send password={EMAIL}{FORGED}")

    notices = Notices()
    notices.subscribe(listener)
    notices.emit(WorkerStarted("default", "thread", "memory:"))
    assert log.getvalue().startswith("ERROR envoyou: a listener failed for WorkerStarted\n  Traceback")
    assert EMAIL not in log.getvalue()
    assert FORGED not in log.getvalue()


def test_the_texts_of_a_notice_stay_on_one_line(log):
    log_notice(Accepted(f"evt_\u202e1{FORGED}", "user.created", Added.NEW))
    assert log.getvalue() == "INFO envoyou: accepted evt_\ufffd1\ufffdERROR envoyou: forged (user.created)\n"


def test_a_record_names_the_caller_of_the_logger(caplog):
    caplog.set_level(logging.DEBUG, "envoyou")
    log_notice(WorkerStarted("default", "thread", "memory:"))
    assert caplog.records[0].funcName == "log_notice"


CORE = SECRET.removeprefix("whsec_")
SPELLINGS = {
    "as it is": SECRET,
    "without its prefix": CORE,
    "percent-encoded": quote(SECRET, safe=""),
    "hexadecimal": SECRET.encode().hex(),
    "upper-case hexadecimal": SECRET.encode().hex().upper(),
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64 of a longer text": base64.b64encode(f"ada:{SECRET}.".encode()).decode(),
    "base64 at another offset": base64.b64encode(f"a:{SECRET}".encode()).decode(),
    "URL-safe base64": base64.urlsafe_b64encode(SECRET.encode()).decode(),
    "bytes": repr(SECRET.encode()),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_signing_secret_of_this_process_is_removed_in_every_spelling(spelling):
    Webhooks(secret=SECRET, inbox="memory:", handoff="manual")
    shown = redact(f"signed with <{SPELLINGS[spelling]}> just now")
    assert shown.startswith("signed with <")
    assert shown.endswith("> just now")
    # In base64, the characters that also encode neighbouring bytes may remain.
    rest = shown.replace("[redacted]", "").replace("signed with ", "").replace(" just now", "")
    assert CORE[:4] not in rest
    assert len(rest) <= 20


def test_a_short_secret_is_not_redacted_because_it_may_be_an_ordinary_word():
    Webhooks(secret="handler", inbox="memory:", handoff="manual")
    assert redact("the handler failed") == "the handler failed"


def test_the_number_of_known_secrets_is_bounded():
    for number in range(200):
        redaction.remember_secret(f"whsec_tenant-number-{number}")
    assert redact("tenant-number-199") == "[redacted]"
    assert len(redaction._known_secrets) == redaction.MAX_KNOWN_SECRETS


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            'duplicate key value violates unique constraint "users_email"\nDETAIL:  Key (email)=(ada@example.com) '
            "already exists.\n",
            'duplicate key value violates unique constraint "users_email"\nDETAIL: [redacted]\n',
        ),
        (
            "Schlüssel »(email, name)=(ada@example.com, Ada (Byron))« existiert bereits.",
            "Schlüssel »(email, name)=([redacted])",
        ),
        ("syntax error\nLINE 1: INSERT INTO a ('ada')\n   ^", "syntax error\nLINE 1: [redacted]\n   ^"),
        ('invalid input syntax for type integer: "ada"', "invalid input syntax for type integer: [redacted]"),
        ('invalid input value for enum mood: "ada"', "invalid input value for enum mood: [redacted]"),
        (
            "invalid input for query argument $5: 'ada' (expected int)",
            "invalid input for query argument $5: [redacted]",
        ),
        ("(1062, \"Duplicate entry 'ada@example.com' for key 'PRIMARY'\")", '(1062, "Duplicate entry [redacted]'),
        ("Incorrect integer value: 'ada' for column 'n' at row 1", "Incorrect integer value: [redacted]"),
        (
            "E\n[SQL: SELECT\n'ada']\n[parameters: ('a]\\n', 'ada')]\n(Background on this error at: https://sqlalche.me)",
            "E\n[SQL: [redacted]]\n[parameters: [redacted]]\n(Background on this error at: https://sqlalche.me)",
        ),
        (
            "[type=int_parsing, input_value='ada, input_type=', input_type=str]",
            "[type=int_parsing, input_value=[redacted]",
        ),
    ],
)
def test_the_values_in_the_messages_of_libraries_are_removed(message, shown):
    assert redact(message) == shown
    assert redact(shown) == shown


def test_the_id_and_the_type_of_the_event_are_kept():
    failure = failure_of("keeps", LookupError(f"no {EVENT.id} of user_1 ({EVENT.type})"), EVENT)
    assert failure.error == "LookupError: no evt_1 of user_1 (user.created)"


def test_a_short_value_is_removed_only_if_it_is_a_whole_word():
    event = sample_event(object={"city": "London"})
    failure = failure_of("keeps", LookupError("no London in Londonderry"), event)
    assert failure.error == "LookupError: no [redacted] in Londonderry"
