"""Parses the README and the pages of the documentation into sections and code blocks."""

import re
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]

FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^## (.+)\n", re.MULTILINE)
TITLE = re.compile(r"(?:#|<!--|\{#) ([\w./-]+\.\w+)( \(add\))?(?: (?:-->|#\}))?$")

QUICKSTARTS = {"django": "Django", "flask": "Flask", "fastapi": "FastAPI", "starlette": "Starlette"}
"""The name of the framework of each adapter."""


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        language: `console` for commands, `text` for their output, otherwise the language of a file.
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
        blocks = []
        for language, code in FENCED.findall(self.section(title)):
            named = TITLE.match(code.partition("\n")[0])
            blocks.append(Block(language, code, named[1] if named else None, bool(named and named[2])))
        return blocks

    def rows(self, title: str) -> list[list[str]]:
        """Return the cells of the table in a section, without its header."""
        lines = [line for line in self.section(title).splitlines() if line.startswith("|")]
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


README = Page("README.md")
