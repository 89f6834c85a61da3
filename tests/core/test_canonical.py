"""The canonical form equals that of the guide's Python recipe, even if it is computed piece by piece."""

import json
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from envoyou_core.reception import canonical
from envoyou_core.reception.canonical import SMALL_BODY, canonical_form
from tests.hostile_json import INPUTS, json_texts

SIZE = 200_000


def recipe(body: bytes) -> bytes | None:
    """Compute what the guide's Python sample signs; `None` if the body is invalid or ambiguous."""

    def members(pairs):
        if len(dict(pairs)) != len(pairs):
            raise ValueError("two members have the same name")
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
    """Pad the document with white space beyond `SMALL_BODY`."""
    return body + b" " * (SMALL_BODY + 1 - len(body))


@settings(max_examples=INPUTS)
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


@settings(max_examples=INPUTS)
@given(body=st.binary(max_size=40) | st.text(alphabet='[]{}",: \\u0d8nt1-.e\n', max_size=40).map(str.encode))
def test_invalid_json_has_no_canonical_form_at_any_size(body):
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


EXPENSIVE_TOKENS = {"long integers": SIZE // 4001, "deep objects": 400}
"""The number of tokens that are so expensive that each is followed by a pause."""


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_processed_with_regular_pauses(shape):
    """Count tokens instead of seconds, which depend on the machine."""
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
    assert len(pauses) >= len(pieces) + EXPENSIVE_TOKENS.get(shape, 0)


def test_pause_regularly_sleeps_after_each_millisecond_of_work(monkeypatch):
    worked, slept = [0.0], []
    monkeypatch.setattr(time, "thread_time", lambda: worked[0])
    monkeypatch.setattr(time, "sleep", slept.append)
    rest = canonical.pause_regularly()
    for _ in range(10):
        worked[0] += canonical.WORK_TIME / 2
        rest()
    assert slept == [canonical.PAUSE_TIME] * 5
