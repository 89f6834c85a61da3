"""Parses the README and the pages of the documentation into sections and code blocks."""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]

FENCED = re.compile(r"^( *)```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^## (.+)\n", re.MULTILINE)
TITLE = re.compile(r"(?:#|<!--|\{#|//) ([\w./-]+\.\w+)( \(add\))?(?: (?:-->|#\}))?$")

QUICKSTARTS = {"django": "Django", "flask": "Flask", "fastapi": "FastAPI", "starlette": "Starlette"}
"""The name of the framework of each adapter."""


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        language: `console` for commands, `text` for their output, otherwise the language of a file or of a snippet.
        code: the content of the block.
        file: the file name in the first line, if any.
        adds: whether the block is appended to the file.
    """

    language: str
    code: str
    file: str | None = None
    adds: bool = False


@dataclass(frozen=True)
class Page:
    """A Markdown file; its path is relative to the project."""

    path: str

    @property
    def text(self) -> str:
        return (PROJECT / self.path).read_text(encoding="utf-8")

    def titles(self) -> list[str]:
        """Return the headings of the second level."""
        return HEADING.findall(self.text)

    def section(self, title: str | None = None) -> str:
        """Return the text under a heading of the second level, or before the first one."""
        introduction, *parts = HEADING.split(self.text)
        return introduction if title is None else dict(zip(parts[::2], parts[1::2], strict=True))[title]

    def blocks(self, title: str | None = None) -> list[Block]:
        """Return the code blocks of a section in order."""
        return parse(self.section(title))

    def all_blocks(self) -> list[Block]:
        """Return the code blocks of the page in order."""
        return parse(self.text)

    def rows(self, title: str) -> list[list[str]]:
        """Return the cells of the tables in a section, without their headers."""
        table = r"^\|.*\n\|[ :|-]+\n((?:\|.*\n?)+)"
        lines = "".join(re.findall(table, self.section(title), flags=re.MULTILINE)).splitlines()
        return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])] for line in lines]


def parse(text: str) -> list[Block]:
    """Return the code blocks of a text in order."""
    blocks = []
    for _, language, title, code in FENCED.findall(text):
        code = textwrap.dedent(code)
        named = TITLE.match(code.partition("\n")[0])
        blocks.append(Block(language, code, title or (named[1] if named else None), bool(named and named[2])))
    return blocks


README = Page("README.md")
PAGES = [README, *(Page(f"docs/{path.name}") for path in sorted((PROJECT / "docs").glob("*.md")))]
