"""Payloads as people see them: bounded, without control characters, and masked if wanted."""

import json

import pytest

from envoyou_core.payloads import ELLIPSIS, MASK, MAX_DEPTH, MAX_SIZE, MAX_TEXT, decoded, excerpt_of


def test_a_payload_is_indented_and_keeps_numbers_as_sent():
    excerpt = excerpt_of(b'{"id":"evt_1","amount":1.10,"digits":' + b"9" * 1_000 + b',"tags":[],"more":[1,2]}')
    assert '"amount": 1.10' in excerpt.text
    assert "9" * 1_000 in excerpt.text
    assert '"tags": []' in excerpt.text
    assert '"more": [\n    1,\n    2\n  ]' in excerpt.text
    assert (excerpt.is_complete, excerpt.is_json) == (True, True)


def test_a_deep_payload_is_cut_at_a_depth():
    excerpt = excerpt_of(b"[" * (MAX_DEPTH + 5) + b"]" * (MAX_DEPTH + 5))
    assert f"[{ELLIPSIS}]" in excerpt.text
    assert not excerpt.is_complete


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(["x"] * MAX_SIZE).encode(),
        json.dumps({"notes": "x" * (MAX_TEXT + 1)}).encode(),
        b"x" * (MAX_SIZE + 1),
    ],
    ids=["many items", "a long text", "not JSON"],
)
def test_a_long_payload_is_cut(body):
    excerpt = excerpt_of(body)
    assert len(excerpt.text) < MAX_SIZE + 1_000
    assert ELLIPSIS in excerpt.text
    assert not excerpt.is_complete


@pytest.mark.parametrize("body", [b"\xff\x1b[2J", b"[" * 100_000, b"9" * 100_000], ids=["text", "depth", "digits"])
def test_a_body_that_the_decoder_rejects_is_shown_as_sent_and_masked_as_a_whole(body):
    shown = excerpt_of(b"<" + body)
    assert (shown.is_json, shown.text.startswith("<")) == (False, True)
    assert "\x1b" not in shown.text
    assert excerpt_of(b"<" + body, masked=True).text == MASK
    assert decoded(b"<" + body, masked=True) == MASK
    assert decoded(b"<" + body, masked=False).startswith("<")


def test_personal_values_are_masked_and_identifying_ones_are_not():
    body = (
        b'{"id":"evt_1","data":{"object":{"id":"u1","email":"a@b.c","age":41,"vip":true,"b@c.d":1,"note":null,'
        b'"tags":["x"]}}}'
    )
    masked = {
        "id": "evt_1",
        "data": {
            "object": {"id": "u1", "email": MASK, "age": MASK, "vip": True, MASK: MASK, "note": None, "tags": [MASK]}
        },
    }
    assert decoded(body, masked=True) == masked
    assert json.loads(excerpt_of(body, masked=True).text) == masked
    assert decoded(body, masked=False) == json.loads(body)
