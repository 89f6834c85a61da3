"""Valid JSON texts that decoders disagree about."""

from __future__ import annotations

import json

from hypothesis import strategies as st

from tests.thoroughness import examples

__all__ = ["INPUTS", "json_texts", "members_of", "string_texts"]

INPUTS = examples(1000, otherwise=200)
"""How many of them a test tries."""

_escapes = st.sampled_from(
    [r"\ud800", r"\udfff", r"\uD83D", r"\ud83d\ude00", r"\\ud800", r"\u0000", r"\u003a", r"\u0022", r"\n", r"\/", ":"]
)
string_texts = st.lists(
    _escapes
    | st.text(st.characters(codec="utf-8"), max_size=4).map(lambda t: json.dumps(t)[1:-1])
    | st.text(st.characters(codec="utf-8", min_codepoint=0x20, exclude_characters='"\\'), max_size=4),
    max_size=3,
).map(lambda parts: '"' + "".join(parts) + '"')
"""JSON strings: lone surrogates, escapes, and plain characters."""

_number_texts = (
    st.integers().map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.sampled_from(
        [
            "-0",
            "-0.0",
            "1e5",
            "1E+5",
            "0.1e-5",
            "1e999",
            "-1e999",
            "1e-999",
            "1" * 4300,
            "1" * 5000,
            "-" + "9" * 4301,
            "9007199254740993",
            "18446744073709551616",
            "NaN",
            "Infinity",
            "-Infinity",
            "1." + "3" * 400,
        ]
    )
)
_spaces = st.sampled_from(["", "", " ", "\n\t", "\r "])


def _with_spaces(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(_spaces, parts, _spaces).map("".join)


def members_of(names: st.SearchStrategy[str], values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Generate the text between the braces of an object; a name may occur twice."""
    return st.lists(st.tuples(_with_spaces(names), values).map(":".join), max_size=4).map(",".join)


json_texts = _with_spaces(
    st.recursive(
        string_texts | _number_texts | st.sampled_from(["true", "false", "null", "[]", "{}", "[" * 600 + "]" * 600]),
        lambda inner: (
            st.lists(_with_spaces(inner), max_size=4).map(lambda items: f"[{','.join(items)}]")
            | members_of(string_texts, _with_spaces(inner)).map(lambda members: f"{{{members}}}")
        ),
        max_leaves=12,
    )
)
"""JSON values, including NaN and infinities, which are not in the standard but accepted by Python."""
