"""What is kept of a handler's failure: readable, short, storable, and without secrets."""

import json
import sys
import time
import traceback
import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from envoyou_core import Event
from envoyou_core.errors import describe
from envoyou_core.inbox.history import Failure
from envoyou_core.redaction import MAX_READ, redact
from envoyou_core.testing import sample_event
from envoyou_core.worker.failures import MAX_TRACEBACK, failure_of

EVENT = sample_event(id="evt_1", object={"id": "user_1", "email": "ada@example.com", "name": "Ada Ünal 'AU' \\ \n"})
SECRET = "Hunter2-correct+horse/battery~staple"


def raised(error, cause=None):
    """`error` as it is when it was raised: with a traceback."""
    try:
        raise error from cause
    except type(error) as caught:
        return caught


def failure(error, event=EVENT):
    found = failure_of("welcome", error, event)
    assert isinstance(found, Failure)
    assert found.handler == "welcome"
    return found


def test_a_failure_is_told_in_one_line_and_at_length():
    found = failure(raised(ValueError("no such user\nat all")))
    assert found.error == "ValueError: no such user"
    assert found.traceback.startswith("Traceback (most recent call last):\n")
    assert 'test_failures.py", line' in found.traceback
    assert "    raise error from cause\n" in found.traceback
    assert found.traceback.endswith("ValueError: no such user\nat all\n")


def test_causes_and_notes_are_told_too():
    error = raised(ValueError("outer"), cause=raised(OSError("the disk is full")))
    error.add_note("while saving")
    text = failure(error).traceback
    assert text.index("OSError: the disk is full") < text.index("direct cause") < text.index("ValueError: outer")
    assert text.endswith("while saving\n")


def test_the_values_of_local_variables_are_not_told():
    def handler():
        local = "x" + "y" * 3
        raise ValueError(len(local))

    with pytest.raises(ValueError, match="4") as caught:
        handler()
    assert "xyyy" not in failure(caught.value).traceback


def test_a_long_one_is_cut_to_its_end_and_says_so():
    text = failure(raised(ValueError("begin" + "-" * 5_000 + "end"))).traceback
    assert len(text) == MAX_TRACEBACK == 4_000
    assert text.startswith("[the beginning is cut]\n-----")
    assert text.endswith("--end\n")
    short = failure(raised(ValueError("-" * 3_000))).traceback
    assert short.startswith("Traceback")


@pytest.mark.parametrize("size", [49_000, 60_000, 3_000_000])
def test_however_long_an_error_is_its_end_is_told(size):
    text = failure(raised(ValueError("-" * size + " end"))).traceback
    assert len(text) == MAX_TRACEBACK
    assert text.endswith("- end\n")


def test_what_is_left_of_a_very_long_one_is_said_to_be_cut():
    """Though little is left, as the rest was one secret."""
    text = failure(raised(ValueError("-" * 60_000 + ' password="' + "x" * 49_000 + '" end'))).traceback
    assert text.startswith("[the beginning is cut]\n")
    assert text.endswith("password=[redacted] end\n")


# Text that can be stored


def test_control_characters_and_halves_of_pairs_are_replaced_but_for_lines_and_tabs():
    found = failure(raised(ValueError("a\tb\x00c\x1b[31md\r\ue000\ud83d\x7f\u202e\nnext \U0001f600 é")))
    assert found.traceback.endswith("ValueError: a\tb�c�[31md����" + "�\nnext \U0001f600 é\n")
    assert found.error == "ValueError: a�b�c�[31md"


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
def test_what_looks_like_a_secret_is_taken_out(text):
    text = "before " + text.format(SECRET, SECRET) + " after"
    shown = redact(text)
    assert SECRET not in shown
    assert "Hunter2" not in shown
    assert "staple" not in shown
    assert "[redacted]" in shown
    assert shown.startswith("before ")
    assert shown.endswith("after")


@pytest.mark.parametrize("value", ["with spaces in it", 'with \\" one', "with, commas; and (brackets)", "a=b", "://@"])
def test_a_quoted_secret_goes_as_a_whole(value):
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
def test_what_is_taken_out_begins_and_ends_with_the_value(text, shown):
    assert redact(text) == shown


def test_a_signature_is_taken_out():
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
def test_what_is_none_stays(text):
    assert redact(text) == text


def test_secrets_stand_neither_in_the_message_nor_in_what_it_came_from():
    cause = raised(ConnectionError(f"postgresql://app:{SECRET}@db refused"))
    found = failure(raised(RuntimeError("whsec_outer was of no use"), cause=cause))
    assert "ConnectionError: postgresql://app:[redacted]@db refused" in found.traceback
    assert found.error == "RuntimeError: [redacted] was of no use"
    assert "whsec_outer" not in found.traceback


def test_a_literal_in_a_line_of_source_is_taken_out(tmp_path):
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
def test_the_events_own_body_is_taken_out(form, event):
    found = failure(raised(ValueError(f"cannot use {FORMS[form](event)} at all")), event)
    assert "ada@example.com" not in found.error + found.traceback
    assert found.error.startswith("ValueError: cannot use ")
    assert found.error.endswith(" at all")


def test_the_body_is_taken_out_before_anything_is_cut():
    event = sample_event(object={"id": "user_1", "notes": "private " * 20_000})
    found = failure(raised(ValueError(f"{event.body.decode()} {event.data.object}")), event)
    assert "private" not in found.error + found.traceback


def test_an_empty_object_is_in_every_text_and_is_left_there():
    event = sample_event(object={})
    assert failure(raised(ValueError("a {} b")), event).error == "ValueError: a {} b"


def test_an_object_that_cannot_be_read_harms_nothing():
    event = sample_event(object={"number": 1})
    broken = type(event).from_body(event.body.replace(b'"number": 1', b'"number": ' + b"1" * 5_000))
    assert failure(raised(ValueError("no")), broken).error == "ValueError: no"


# Whatever the error


class UnspeakableError(Exception):
    def __str__(self):
        raise RuntimeError("no words")

    __repr__ = __str__


class WrongWordsError(Exception):
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
        error = ExceptionGroup("group", [error, UnspeakableError()])
    return error


def syntax_error():
    error = SyntaxError("no")
    error.text, error.lineno, error.offset, error.filename = 3, "x", object(), b"\xff"
    return error


ODD = {
    "unspeakable": UnspeakableError,
    "wrong words": WrongWordsError,
    "endless": EndlessError,
    "a long chain": lambda: chain(500),
    "a circle": circle,
    "recursion": recursion,
    "a group": lambda: ExceptionGroup("several", [ValueError("a"), raised(KeyError("b")), UnspeakableError()]),
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
def test_an_odd_error_is_told_as_well_as_can_be(odd):
    found = failure(raised(ODD[odd]()))
    assert found.error
    assert found.traceback
    assert_storable(found.error)
    assert_storable(found.traceback)


def test_a_traceback_that_cannot_be_made_is_replaced_by_the_line(monkeypatch):
    def fail(*_, **__):
        raise RecursionError

    monkeypatch.setattr(traceback, "format_exception", fail)
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
def test_whatever_is_around_a_secret_it_is_not_shown(secret, template, before, after, depth, padding):
    assume(secret not in before + after)
    message = f"{before}{' ' * padding} {template.format(secret)} {after}"
    error = ValueError(message)
    for _ in range(depth):
        error = raised(ExceptionGroup(f"also {template.format(secret)}", [error]), cause=raised(KeyError(message)))
    found = failure(raised(error))
    assert secret not in found.traceback
    assert secret not in found.error
    assert_storable(found.traceback)
    assert_storable(found.error)


@given(st.text(max_size=300), st.integers(0, 3))
def test_whatever_an_error_says_it_can_be_told(message, depth):
    error = ValueError(message)
    for _ in range(depth):
        error = raised(RuntimeError(message), cause=error)
    found = failure(raised(error))
    assert_storable(found.traceback)
    assert found.error == describe(error)


@given(
    st.lists(st.sampled_from(["password", "=", ":", " ", '"', "'", "\\", "://", "@", "a", "token", "v1,", "bearer "]))
)
def test_redaction_ends_and_leaves_text(parts):
    assert isinstance(redact("".join(parts)), str)


@pytest.mark.parametrize(
    "piece",
    [
        *("secret", "password=", 'password="', "://a:", "password: a ", "password=\\", "token ", "a@", "bearer "),
        *("v1,", "[SQL: ", "[SQL: x]\n", "[parameters: x] ", "DETAIL:", "LINE 1", ")=(", "invalid input syntax"),
        *("input_value=", "Duplicate entry ", "Incorrect a "),
    ],
)
def test_redaction_takes_time_in_proportion_to_the_text(piece):
    """One long text takes about as long as many short ones of the same total length: strangers fill errors.

    In time that grows with the square of the length, it would take as many times as long as there are parts. Measured
    in processor time of this thread, which does not pass while other programs run.
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


def test_a_deep_stack_is_told_by_its_end():
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
