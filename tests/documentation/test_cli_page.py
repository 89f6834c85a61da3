"""The page of the command line has every command and every option, and no others."""

import re

import pytest

from tests.documentation.command_reference import BEGIN, PAGE, commands, draw, options_of

pytestmark = pytest.mark.text

WRITTEN, _, DRAWN = PAGE.read_text(encoding="utf-8").partition(BEGIN)
ELSEWHERE = {"--app", "--help", "--install-completion", "--version"}
"""Options that the page explains in a section of their own."""

INSIDE_CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def names_of(command):
    options = [each for each in options_of(command) if each.param_type_name == "option"]
    return {name for each in options for name in (*each.opts, *each.secondary_opts) if name.startswith("--")}


def rows():
    """Yield the rows of the written tables: the commands in the first cell, and the options in the second."""
    for first, second in re.findall(r"^\| (`[a-z].*?) \| (.*) \|$", WRITTEN, flags=re.MULTILINE):
        commands_in_row = [words.strip() for words in re.findall(r"`([a-z][a-z ]*)", first)]
        yield commands_in_row, set(OPTION.findall(" ".join(INSIDE_CODE.findall(second))))


def test_the_drawn_part_is_that_of_the_code():
    assert draw() == BEGIN + DRAWN, "write it anew: python -m tests.documentation.command_reference"


def test_the_tables_name_every_command():
    named = {command for row, _ in rows() for command in row}
    groups = {name.split()[1] for name, _ in commands() if name.count(" ") > 1}
    for name, _ in commands():
        words = name.split()[1:]
        if not words or (words[0] in groups and len(words) == 1):
            continue
        assert " ".join(words) in named or words[-1] in named, f"no table has `{' '.join(words)}`"


def test_the_written_part_names_no_option_that_does_not_exist():
    known = ELSEWHERE.union(*(names_of(command) for _, command in commands()))
    # Options of other programs in the blocks of the page.
    written = "\n".join(line for line in WRITTEN.splitlines() if not line.startswith(("uvicorn", "curl", "pip")))
    assert set(OPTION.findall(" ".join(INSIDE_CODE.findall(written)))) <= known


def test_options_stand_in_the_rows_of_their_commands():
    by_name = {" ".join(name.split()[1:]): names_of(command) for name, command in commands()}
    checked = 0
    for row, options in rows():
        if len(row) == 1 and row[0] in by_name:
            assert options <= by_name[row[0]] | {"--app"}, row
            checked += 1
    assert checked > 10
