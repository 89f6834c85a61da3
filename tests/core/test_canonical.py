"""The canonical form: Python's own recipe, also where it is computed piece by piece."""

import json
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from envoyou_core.reception import canonical
from envoyou_core.reception.canonical import SMALL_BODY, canonical_form
from tests.hostile_json import json_texts

SIZE = 200_000


def recipe(body: bytes) -> bytes | None:
    """What the guide's Python sample signs; `None` if Python cannot read the body, or nobody else could."""

    def members(pairs):
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a member is named twice")
        return dict(pairs)

    def refuse(constant):
        raise ValueError(constant)

    try:
        document = json.loads(body.decode(), object_pairs_hook=members, parse_constant=refuse)
        return json.dumps(document, separators=(",", ":"), sort_keys=True, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return None


def computed(body: bytes) -> bytes | None:
    try:
        return canonical_form(body)
    except ValueError:
        return None


def padded(body: bytes) -> bytes:
    """The same document in more bytes than are read in one go."""
    return body + b" " * (SMALL_BODY + 1 - len(body))


@settings(max_examples=1000)
@given(text=json_texts)
@example('{"b":1,"a":[{"d":-0,"c":-0.0},"\\ud83d\\ude00","\\ud83d"],"\\u007f":1E5}')
@example('[{"a" : {} , "b":{ }},{"":[ ]} ]')
@example("-0")
@example("-9223372036854775809")
@example('["\\u005c\\ud800", "\\\\ud800", "\\uDFFF\\uD83d"]')
@example('{"\\ud83d\\ude00":1,"\\uffff":2,"\\ud800":3}')
@example('["\x7f", "\u2028", "\\/"]')
def test_a_large_body_has_the_same_form_as_a_small_one(text):
    body = text.encode("utf-8", "surrogatepass")
    assert computed(body) == computed(padded(body)) == recipe(body)


@settings(max_examples=1000)
@given(body=st.binary(max_size=40) | st.text(alphabet='[]{}",: \\u0d8nt1-.e\n', max_size=40).map(str.encode))
def test_what_is_not_json_has_no_form_at_any_size(body):
    assert computed(body) == computed(padded(body)) == recipe(body)


@pytest.mark.parametrize("count", [1, 499, 500, 501, 2500])
def test_members_are_sorted_however_many_there_are(count):
    names = [f"{number * 7919 % 100_003}{'x' * 12}" for number in range(count)]
    body = json.dumps({name: {"b": 1, "a": 2} for name in names}).encode()
    assert computed(body) == recipe(body)


SHAPES = {
    "text": '"' + "a" * SIZE + '"',
    "escapes": '"' + r"\n" * (SIZE // 2) + '"',
    "nested lists": "[" + ",".join(["[" * 50 + "]" * 50] * (SIZE // 101)) + "]",
    "floats": "[" + ",".join(["1.5"] * (SIZE // 4)) + "]",
    "long integers": "[" + ",".join(["1" * 4000] * (SIZE // 4001)) + "]",
    "texts": "[" + ",".join(['"a"'] * (SIZE // 4)) + "]",
    "escaped texts": "[" + ",".join([r'"\n"'] * (SIZE // 5)) + "]",
    "members": "{" + ",".join(f'"{number}":1' for number in range(SIZE // 9)) + "}",
    "objects": "[" + ",".join(['{"a":1}'] * (SIZE // 8)) + "]",
    "empty objects": "[" + ",".join(["{}"] * (SIZE // 3)) + "]",
    "deep objects": '{"b":1,"a":' * 400 + '"' + "a" * SIZE + '"' + "}" * 400,
    "white space": "[" + " " * SIZE + "]",
}


MUCH_WORK = {"long integers": SIZE // 4001, "deep objects": 400}
"""Tokens of which each one is so much work that a pause is due before the next."""


@pytest.mark.parametrize("shape", SHAPES)
def test_no_shape_is_worked_on_for_long_without_a_pause(shape):
    """Counted in tokens, and not in seconds, which depend on the machine."""
    pieces, pauses = [], []
    read = canonical._pieces

    def counted(text):
        for tokens in read(text):
            assert len(tokens) <= canonical.PIECE
            pieces.append(len(tokens))
            yield tokens

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canonical, "_pieces", counted)
        body = SHAPES[shape].encode()
        assert canonical_form(body, pause=lambda: pauses.append(None)) == recipe(body)
    assert len(pauses) >= len(pieces) + MUCH_WORK.get(shape, 0)


def test_a_thread_that_rests_sleeps_after_each_bit_of_work(monkeypatch):
    worked, slept = [0.0], []
    monkeypatch.setattr(time, "thread_time", lambda: worked[0])
    monkeypatch.setattr(time, "sleep", slept.append)
    rest = canonical.regular_rests()
    for _ in range(10):
        worked[0] += canonical.WORK / 2
        rest()
    assert slept == [canonical.REST] * 5
