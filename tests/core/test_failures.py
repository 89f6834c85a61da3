"""The record of a handler's failure: readable, short, storable, and without secrets."""

import json
import re
import sys
import time
import traceback
import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from envoyou_core import Event, WebhookRequest, Webhooks
from envoyou_core.errors import describe
from envoyou_core.inbox.history import Failure
from envoyou_core.redaction import MAX_READ, redact
from envoyou_core.steps import run_in_own_loop
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_core.worker.failures import MAX_TRACEBACK, failure_of

EVENT = sample_event(id="evt_1", object={"id": "user_1", "email": "ada@example.com", "name": "Ada Ünal 'AU' \\ \n"})
SECRET = "Hunter2-correct+horse/battery~staple"


def raised(error, cause=None):
    """Raise `error`, so that it has a traceback, and return it."""
    try:
        raise error from cause
    except type(error) as caught:
        return caught


def failure(error, event=EVENT):
    record = failure_of("welcome", error, event)
    assert isinstance(record, Failure)
    assert record.handler == "welcome"
    return record


def test_a_failure_has_one_line_and_a_traceback():
    record = failure(raised(ValueError("no such user\nat all")))
    assert record.error == "ValueError: no such user"
    assert record.traceback.startswith("Traceback (most recent call last):\n")
    assert 'test_failures.py", line' in record.traceback
    assert "    raise error from cause\n" in record.traceback
    assert record.traceback.endswith("ValueError: no such user\nat all\n")


def test_a_traceback_includes_causes_and_notes():
    error = raised(ValueError("outer"), cause=raised(OSError("the disk is full")))
    error.add_note("while saving")
    text = failure(error).traceback
    assert text.index("OSError: the disk is full") < text.index("direct cause") < text.index("ValueError: outer")
    assert text.endswith("while saving\n")


def fail_here(event):
    try:
        raise OSError("the disk is full")
    except OSError as error:
        raise ValueError("outer") from error


def test_the_stored_traceback_begins_with_the_handler(tmp_path):
    webhooks = Webhooks(secret=SECRET, inbox=f"sqlite:///{tmp_path}/inbox.db", handoff="manual")

    @webhooks.on("*", name="plain")
    def plain(event):
        fail_here(event)

    @webhooks.on("*", name="async")
    async def async_(event):
        fail_here(event)

    @webhooks.on("*", name="transactional")
    def transactional(event, connection):
        fail_here(event)

    @webhooks.on("*", name="inbox")
    def inbox(event):
        webhooks.inbox.requeue()

    delivery = sign_delivery(sample_event(id="evt_1"), secret=SECRET)
    webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
    webhooks.drain()
    webhooks.stop()
    [attempt] = webhooks.inbox.get("evt_1").history
    for failure, first in zip(attempt.failures, ("plain", "async_", "transactional"), strict=False):
        cause, _, effect = failure.traceback.partition("direct cause")
        assert re.findall(r", in (\w+)", cause) == ["fail_here"]
        assert re.findall(r", in (\w+)", effect) == [first, "fail_here"]
    # What a handler calls stays, although it is this library's.
    assert re.findall(r", in (\w+)", attempt.failures[3].traceback)[:2] == ["inbox", "requeue"]


def test_the_traceback_of_an_error_of_the_library_itself_is_complete():
    def provoke():
        try:
            Webhooks(secret="")
        except Exception as error:
            return failure(error)

    # Called by the test, as nothing of the library calls it.
    assert re.findall(r", in (\w+)", provoke().traceback)[0] == "provoke"
    error = None
    try:
        run_in_own_loop(None)
    except TypeError as raised:
        error = raised
    error.__traceback__ = error.__traceback__.tb_next
    frames = re.findall(r", in (\w+)", failure(error).traceback)
    assert (frames[0], frames[-1]) == ("run_in_own_loop", "main")


def test_a_traceback_does_not_include_local_variables():
    def handler():
        local = "x" + "y" * 3
        raise ValueError(len(local))

    with pytest.raises(ValueError, match="4") as caught:
        handler()
    assert "xyyy" not in failure(caught.value).traceback


def test_a_long_traceback_is_cut_at_the_beginning_and_marked():
    text = failure(raised(ValueError("begin" + "-" * 5_000 + "end"))).traceback
    assert len(text) == MAX_TRACEBACK == 4_000
    assert text.startswith("[the beginning is cut]\n-----")
    assert text.endswith("--end\n")
    short = failure(raised(ValueError("-" * 3_000))).traceback
    assert short.startswith("Traceback")


@pytest.mark.parametrize("size", [49_000, 60_000, 3_000_000])
def test_the_end_of_a_long_error_is_kept(size):
    text = failure(raised(ValueError("-" * size + " end"))).traceback
    assert len(text) == MAX_TRACEBACK
    assert text.endswith("- end\n")


def test_a_cut_traceback_is_marked_even_if_redaction_makes_it_short():
    """Most of the text is one secret."""
    text = failure(raised(ValueError("-" * 60_000 + ' password="' + "x" * 49_000 + '" end'))).traceback
    assert text.startswith("[the beginning is cut]\n")
    assert text.endswith("password=[redacted] end\n")


# Storable text


def test_control_characters_and_lone_surrogates_are_replaced_except_line_breaks_and_tabs():
    record = failure(raised(ValueError("a\tb\x00c\x1b[31md\r\ue000\ud83d\x7f\u202e\nnext \U0001f600 é")))
    assert record.traceback.endswith("ValueError: a\tb�c�[31md����" + "�\nnext \U0001f600 é\n")
    assert record.error == "ValueError: a�b�c�[31md"


# Secrets


@pytest.mark.parametrize(
    "text",
    [
        "whsec_{}",
        "signed with 'whsec_{}'",
        "password={}",
        "password: {}",
        'password="{}"',
        "PASSWORD = '{}'",
        "db_password='{}', retries=3",
        'DB_PASSWORD = b"{}"',
        "token: str = '{}'",
        "token={} user=ada",
        '{{"client_secret": "{}", "x": 1}}',
        "{{'api_key': '{}'}}",
        "{{'API-Key': '{}'}}",
        "apikey={}",
        "{{'headers': {{'Authorization': 'Basic {}'}}}}",
        "Authorization: Bearer {}",
        "Authorization: Basic {}",
        "authorization={}",
        "got 'Bearer {}'",
        "bearer {}",
        "os.environ['SECRET_KEY'] = '{}'",
        "access_token={}&state=5",
        "https://example.com/?access_token={}&state=5",
        "postgresql+psycopg://app:{}@db.example.com:5432/app",
        "redis://:{}@cache/0",
        "redis://:p@{}@cache/0",
        "could not connect to amqp://u:{}@h and amqp://u:{}@other",
        '"{{\\"password\\": \\"{}\\", \\"x\\": 1}}"',
        "secret=SecretStr('{}')",
        "login(password='{}')",
    ],
)
def test_text_that_looks_like_a_secret_is_redacted(text):
    text = "before " + text.format(SECRET, SECRET) + " after"
    shown = redact(text)
    assert SECRET not in shown
    assert "Hunter2" not in shown
    assert "staple" not in shown
    assert "[redacted]" in shown
    assert shown.startswith("before ")
    assert shown.endswith("after")


@pytest.mark.parametrize("value", ["with spaces in it", 'with \\" one', "with, commas; and (brackets)", "a=b", "://@"])
def test_a_quoted_secret_is_redacted_as_a_whole(value):
    for text in (f'password = "{value}"', f'{{"password": "{value}", "x": 1}}', f'password="{value}" + "more"'):
        assert value not in redact(text).replace("[redacted]", "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password: hunter2 user=ada", "password: [redacted]"),
        ("token: str = 'a b' # of ours", "token: [redacted] # of ours"),
        (r'"{\"password\": \"correct horse\", \"x\": 1}"', r'"{\"password\": [redacted] \"x\": 1}"'),
        ("secret=f'{a} b' + c", "secret=[redacted] + c"),
        ("password='cut off in the mid", "password=[redacted]"),
    ],
)
def test_only_the_value_of_a_secret_is_redacted(text, shown):
    assert redact(text) == shown


def test_a_signature_is_redacted():
    signature = "v1," + "0123456789abcdef" * 4
    assert redact(f"got {signature}, wanted '{signature.upper()}'") == "got [redacted], wanted '[redacted]'"


@pytest.mark.parametrize(
    "text",
    [
        "KeyError: 'email'",
        "ValueError: invalid literal for int() with base 10: 'abc'",
        "InvalidTokenError: the signature has expired",
        '  File "/app/secrets/token.py", line 3, in check_password',
        "https://example.com/path?page=2",
        "postgresql://db.example.com:5432/app",
        "the bearer",
        "v1, 2 and v2",
        "",
    ],
)
def test_other_text_is_kept(text):
    assert redact(text) == text


def test_secrets_are_redacted_in_the_message_and_in_the_cause():
    cause = raised(ConnectionError(f"postgresql://app:{SECRET}@db refused"))
    record = failure(raised(RuntimeError("whsec_outer was of no use"), cause=cause))
    assert "ConnectionError: postgresql://app:[redacted]@db refused" in record.traceback
    assert record.error == "RuntimeError: [redacted] was of no use"
    assert "whsec_outer" not in record.traceback


def test_a_secret_in_a_line_of_source_is_redacted(tmp_path):
    source = tmp_path / "hooks.py"
    source.write_text(
        "def handler():\n    return connect(password='Hunter2 in the source')\n\ndef connect(password):\n    1 / 0\n"
    )
    space = {}
    exec(compile(source.read_text(), str(source), "exec"), space)
    with pytest.raises(ZeroDivisionError) as caught:
        space["handler"]()
    text = failure(caught.value).traceback
    assert "return connect(password=[redacted]" in text
    assert "Hunter2" not in text


FORMS = {
    "the body as text": lambda event: event.body.decode(),
    "the body as bytes": lambda event: event.body,
    "the body as text, shown": lambda event: repr(event.body.decode()),
    "the body within JSON": lambda event: json.dumps(event.body.decode()),
    "the object": lambda event: event.data.object,
    "the object as JSON": lambda event: json.dumps(event.data.object),
    "the object as compact JSON": lambda event: json.dumps(event.data.object, separators=(",", ":")),
    "the object as readable JSON": lambda event: json.dumps(event.data.object, ensure_ascii=False),
    "both": lambda event: f"{event.data.object} {event.body!r}",
}
IN_UTF_8 = Event.from_body(json.dumps(json.loads(EVENT.body), ensure_ascii=False).encode())


@pytest.mark.parametrize("event", [EVENT, IN_UTF_8], ids=["ASCII", "UTF-8"])
@pytest.mark.parametrize("form", FORMS)
def test_the_body_of_the_event_is_removed(form, event):
    record = failure(raised(ValueError(f"cannot use {FORMS[form](event)} at all")), event)
    assert "ada@example.com" not in record.error + record.traceback
    assert record.error.startswith("ValueError: cannot use ")
    assert record.error.endswith(" at all")


def test_the_body_is_removed_before_the_text_is_cut():
    event = sample_event(object={"id": "user_1", "notes": "private " * 20_000})
    record = failure(raised(ValueError(f"{event.body.decode()} {event.data.object}")), event)
    assert "private" not in record.error + record.traceback


def test_an_empty_object_is_not_removed():
    event = sample_event(object={})
    assert failure(raised(ValueError("a {} b")), event).error == "ValueError: a {} b"


def test_an_unreadable_object_does_not_hide_the_failure():
    event = sample_event(object={"number": 1})
    broken = type(event).from_body(event.body.replace(b'"number": 1', b'"number": ' + b"1" * 5_000))
    assert failure(raised(ValueError("no")), broken).error == "ValueError: no"


# Unusual errors


class UnprintableError(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


class WrongTypeError(Exception):
    def __str__(self):
        return 3


class EndlessError(Exception):
    def __str__(self):
        return str(self)


def recursive():
    recursive()


def chain(length):
    error = ValueError("first")
    for number in range(length):
        error = raised(ValueError(f"error {number}"), cause=error)
    return error


def circle():
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    return one


def recursion():
    try:
        recursive()
    except RecursionError as error:
        return error


def nested_groups(depth):
    error = ValueError("innermost")
    for _ in range(depth):
        error = ExceptionGroup("group", [error, UnprintableError()])
    return error


def syntax_error():
    error = SyntaxError("no")
    error.text, error.lineno, error.offset, error.filename = 3, "x", object(), b"\xff"
    return error


ODD = {
    "unprintable": UnprintableError,
    "a wrong type": WrongTypeError,
    "endless": EndlessError,
    "a long chain": lambda: chain(500),
    "a circle": circle,
    "recursion": recursion,
    "a group": lambda: ExceptionGroup("several", [ValueError("a"), raised(KeyError("b")), UnprintableError()]),
    "a deep group": lambda: nested_groups(300),
    "a huge message": lambda: ValueError("x" * 5_000_000),
    "many lines": lambda: ValueError("\n" * 200_000),
    "a malformed syntax error": syntax_error,
    "an empty one": lambda: ValueError(),
    "bytes": lambda: ValueError(b"\xff\x00"),
    "odd notes": lambda: _with_notes([3, None, "\x00"]),
    "no list of notes": lambda: _with_notes(3),
}


def _with_notes(notes):
    error = ValueError("noted")
    error.__notes__ = notes
    return error


def assert_storable(text):
    assert len(text) <= MAX_TRACEBACK
    assert not [c for c in text if unicodedata.category(c) in {"Cc", "Cs"} and c not in "\n\t"]
    text.encode()


@pytest.mark.parametrize("odd", ODD)
def test_an_unusual_error_is_recorded(odd):
    record = failure(raised(ODD[odd]()))
    assert record.error
    assert record.traceback
    assert_storable(record.error)
    assert_storable(record.traceback)


def test_a_traceback_that_cannot_be_formatted_is_replaced_by_the_line(monkeypatch):
    def fail(*_, **__):
        raise RecursionError

    monkeypatch.setattr(traceback.TracebackException, "from_exception", fail)
    assert failure(raised(ValueError("no"))).traceback == "ValueError: no"


secrets = st.text(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/=_-.~!#$%^*", min_size=12, max_size=60
)
templates = st.sampled_from(
    [
        "whsec_{}",
        "password={}",
        'password="{}"',
        "'token': '{}'",
        '"client_secret": "{}"',
        "api_key: {}",
        "Authorization: Bearer {}",
        "x://u:{}@h",
        "Bearer {}",
    ]
)
anything = st.text(max_size=200)


@given(secrets, templates, anything, anything, st.integers(0, 2), st.sampled_from([0, 3_900, 49_900]))
def test_a_secret_is_redacted_in_any_context(secret, template, before, after, depth, padding):
    assume(secret not in before + after)
    message = f"{before}{' ' * padding} {template.format(secret)} {after}"
    error = ValueError(message)
    for _ in range(depth):
        error = raised(ExceptionGroup(f"also {template.format(secret)}", [error]), cause=raised(KeyError(message)))
    record = failure(raised(error))
    assert secret not in record.traceback
    assert secret not in record.error
    assert_storable(record.traceback)
    assert_storable(record.error)


@given(st.text(max_size=300), st.integers(0, 3))
def test_an_error_with_any_text_is_recorded(message, depth):
    error = ValueError(message)
    for _ in range(depth):
        error = raised(RuntimeError(message), cause=error)
    record = failure(raised(error))
    assert_storable(record.traceback)
    assert record.error == describe(error)


@given(
    st.lists(st.sampled_from(["password", "=", ":", " ", '"', "'", "\\", "://", "@", "a", "token", "v1,", "bearer "]))
)
def test_redaction_terminates(parts):
    assert isinstance(redact("".join(parts)), str)


@pytest.mark.parametrize(
    "piece",
    [
        *("secret", "password=", 'password="', "://a:", "password: a ", "password=\\", "token ", "a@", "bearer "),
        *("v1,", "[SQL: ", "[SQL: x]\n", "[parameters: x] ", "DETAIL:", "LINE 1", ")=(", "invalid input syntax"),
        *("input_value=", "Duplicate entry ", "Incorrect a "),
    ],
)
def test_redaction_takes_time_proportional_to_the_length_of_the_text(piece):
    """One long text takes about as long as many short ones of the same total length, whatever an attacker writes.

    If the time were quadratic, it would take longer by the number of parts. The processor time of this thread is
    measured, which does not depend on other programs.
    """
    parts = 64
    short = piece * (MAX_READ // parts // len(piece))
    long = short * parts

    def seconds(texts):
        def once():
            began = time.thread_time()
            for text in texts:
                redact(text)
            return time.thread_time() - began

        return min(once() for _ in range(3))

    assert seconds([long]) < 4 * seconds([short] * parts)


def test_the_end_of_a_deep_stack_is_kept():
    def deep(depth):
        if depth:
            other(depth - 1)
        raise ValueError("at the bottom")

    def other(depth):
        deep(depth)

    with pytest.raises(ValueError, match="bottom") as caught:
        deep(sys.getrecursionlimit() // 4)
    text = failure(caught.value).traceback
    assert text.endswith("ValueError: at the bottom\n")
    assert_storable(text)
