"""Patterns of event types."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envoyou_core import ConfigurationError
from envoyou_core.patterns import check_pattern, matches_any

_types = st.lists(st.sampled_from(["user", "users", "USER", "a_b", "a%b", "é", ""]), min_size=1, max_size=3).map(
    ".".join
)


@pytest.mark.parametrize(
    ("pattern", "type", "matches"),
    [
        ("user.created", "user.created", True),
        ("user.created", "user.created.x", False),
        ("user.created", "User.created", False),
        ("user.*", "user.created", True),
        ("user.*", "user.a.b", True),
        ("user.*", "user.", True),
        ("user.*", "user", False),
        ("user.*", "users.created", False),
        ("user.a.*", "user.ab", False),
        ("*", "anything", True),
        ("user_x.*", "userax.created", False),
        ("user?.*", "users.created", False),
    ],
)
def test_a_pattern_matches_its_types(pattern, type, matches):
    assert matches_any([pattern], type) is matches


def test_one_of_several_is_enough():
    assert matches_any(["auth.*", "user.created"], "user.created")
    assert not matches_any(["auth.*", "user.created"], "user.deleted")
    assert not matches_any([], "user.created")


@given(type=_types, other=_types)
def test_an_exact_pattern_matches_itself_alone(type, other):
    assert matches_any([type], other) is (type == other)


@given(family=_types, type=_types)
def test_a_family_has_the_types_below_its_name(family, type):
    names, parts = family.split("."), type.split(".")
    below = len(parts) > len(names) and parts[: len(names)] == names
    assert matches_any([f"{family}.*"], type) is below


@pytest.mark.parametrize("pattern", ["user.created", "user.*", "user.a.*", "*", "x", "é.*", "a_b.%"])
def test_what_is_a_pattern(pattern):
    check_pattern(pattern)


@pytest.mark.parametrize(
    "pattern", ["", "user*", "*.created", "user.*.x", "**", "user.**", "us*er", None, 3, b"user.*", []]
)
def test_what_is_no_pattern(pattern):
    with pytest.raises(ConfigurationError):
        check_pattern(pattern)
