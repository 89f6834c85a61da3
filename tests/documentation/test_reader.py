"""The reader notices what does not work on a page."""

import pytest

from tests.documentation import reader as module
from tests.documentation.pages import Block, parse


@pytest.mark.parametrize(
    ("blocks", "reason"),
    [
        ([Block("yaml", "a: 1\n")], "nothing is done with this block"),
        ([Block("console", "false\n")], "false"),
        ([Block("console", "python -c 'raise SystemExit(1)'\n")], "SystemExit"),
        ([Block("console", "python -c 'raise SystemExit(2)'\n"), Block("text", "2\n")], "SystemExit"),
        ([Block("console", "echo one\n"), Block("text", "two\n")], "'two' did not come"),
        ([Block("console", "echo evt_1 evt_2\n"), Block("text", "evt_3 evt_3\n")], "did not come"),
        ([Block("python", "1 / 0\n")], "ZeroDivisionError"),
        ([Block("python", "print(1)\n"), Block("text", "2\n")], "'2' did not come"),
        ([Block("python", "x =\n", file="wrong.py")], "invalid syntax"),
        ([Block("console", 'pip install "envoyou-webhooks[no_such_extra]"\n')], "unknown extras"),
        ([Block("console", "pip install no-such-distribution\n")], "not installed"),
    ],
)
def test_a_page_that_does_not_work_is_noticed(blocks, reason, reader, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 2)
    with pytest.raises((AssertionError, SyntaxError), match=reason):
        reader.follow(blocks)


def test_output_may_differ_in_ids_times_and_white_space(reader):
    reader.follow(
        [
            Block("console", "echo 'evt_0a1b  2026-11-30 06:51:46   0.25 s  a long text'\n"),
            Block("text", "evt_1 2026-01-01 00:00 3 s a ... text\n"),
            Block("console", "echo again evt_1\n"),
            Block("text", "again evt_1\n"),
        ]
    )
    assert reader.printed == "again evt_0a1b\n"


def test_blocks_are_read_with_their_names():
    named, added, indented = parse(
        "```python\n# a/b.py\nx = 1\n```\n\n```python\n# a/b.py (add)\ny = 2\n```\n\n  ```text\n  z\n  ```\n"
    )
    assert (named.file, named.adds) == ("a/b.py", False)
    assert (added.file, added.adds) == ("a/b.py", True)
    assert (indented.language, indented.code) == ("text", "z\n")
