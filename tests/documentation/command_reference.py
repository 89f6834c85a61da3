"""Draws the section of `docs/cli.md` that has every command and option from the code.

    python -m tests.documentation.command_reference

writes it anew.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer

from envoyou_core.cli.command_line import app
from tests.documentation.pages import PROJECT

PAGE = PROJECT / "docs" / "cli.md"
BEGIN = "<!-- From here on, the page is drawn from the code: python -m tests.documentation.command_reference -->\n"
INTRODUCTION = """
## Every command and option

Each command also has `--help`.
"""
OF_EVERY_COMMAND = {"--help", "--install-completion", "--show-completion"}
"""Options that come from Typer."""

METAVARS: dict[Any, str] = {float: "NUMBER", int: "N"}


def walk(command: Any, name: str = "envoyou") -> Iterator[tuple[str, Any]]:
    """Yield the command and its subcommands with their full names, in the order of the help."""
    yield name, command
    for word, subcommand in getattr(command, "commands", {}).items():
        yield from walk(subcommand, f"{name} {word}")


def options_of(command: Any) -> list[Any]:
    """Return the options and arguments of a command, without those that come from Typer."""
    return [parameter for parameter in command.params if not OF_EVERY_COMMAND.intersection(parameter.opts)]


def commands() -> list[tuple[str, Any]]:
    """Return every command of `envoyou`, groups included."""
    return list(walk(typer.main.get_command(app)))


def draw() -> str:
    """Return the section."""
    return "\n".join([BEGIN + INTRODUCTION, *(_section(name, command) for name, command in commands())])


def _section(name: str, command: Any) -> str:
    paragraphs = [" ".join(part.split()) for part in (command.help or "").split("\n\n")]
    lines = [f"### `{name}`", ""]
    for paragraph in paragraphs:
        lines += [_prose(paragraph), ""]
    hints = get_type_hints(inspect.unwrap(command.callback)) if command.callback is not None else {}
    if rows := [_row(parameter, hints) for parameter in options_of(command)]:
        lines += ["| option | meaning |", "| --- | --- |", *rows, ""]
    return "\n".join(lines)


def _row(parameter: Any, hints: dict[str, Any]) -> str:
    meaning = " ".join((getattr(parameter, "help", None) or "").split())
    if parameter.required:
        meaning = f"{meaning} Required."
    elif (default := _default(parameter)) is not None:
        meaning = f"{meaning} Default: `{default}`."
    return f"| `{_cell(_synopsis(parameter, hints))}` | {_cell(_prose(meaning.strip()))} |"


def _synopsis(parameter: Any, hints: dict[str, Any]) -> str:
    if parameter.param_type_name == "argument":
        return f"{parameter.metavar or parameter.name.upper()}{'...' if parameter.nargs == -1 else ''}"
    names = "/".join([", ".join(parameter.opts), *parameter.secondary_opts])
    return names if parameter.is_flag else f"{names} {parameter.metavar or _metavar(hints[parameter.name])}"


def _metavar(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "|".join(get_args(hint))
    types = [each for each in get_args(hint) or (hint,) if each is not NoneType]
    return METAVARS.get(types[0], "TEXT")


def _default(parameter: Any) -> object:
    default = parameter.default
    is_empty = default is None or default is False or default in ("", (), [])
    return None if is_empty or callable(default) or not parameter.show_default else default


def _prose(text: str) -> str:
    return text.replace("*", r"\*")


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def main() -> None:
    """Write the section anew."""
    written, _, _ = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(written.rstrip("\n") + "\n\n" + draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
