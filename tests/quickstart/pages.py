"""The README and the pages of the documentation as a reader follows them: sections, and in each its blocks in order."""

import re
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]

FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^## (.+)\n", re.MULTILINE)
TITLE = re.compile(r"(?:#|<!--|\{#) ([\w./-]+\.\w+)( \(add\))?(?: (?:-->|#\}))?$")

QUICKSTARTS = {"django": "Django", "flask": "Flask", "fastapi": "FastAPI", "starlette": "Starlette"}
"""From an adapter to the name of its framework."""


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        language: `console` for commands, `text` for what they show, else that of a file.
        code: what is typed, shown or written.
        file: the name that its first line gives: of the file that it is, or that it adds to.
        adds: whether it adds to the file.
    """

    language: str
    code: str
    file: str | None = None
    adds: bool = False


@dataclass(frozen=True)
class Page:
    """A Markdown file, by its path from the project's root."""

    path: str

    @property
    def text(self) -> str:
        return (PROJECT / self.path).read_text(encoding="utf-8")

    def titles(self) -> list[str]:
        """The headings of the second level."""
        return HEADING.findall(self.text)

    def section(self, title: str | None = None) -> str:
        """The text under a heading of the second level, or before the first."""
        introduction, *parts = HEADING.split(self.text)
        return introduction if title is None else dict(zip(parts[::2], parts[1::2], strict=True))[title]

    def blocks(self, title: str | None = None) -> list[Block]:
        """The blocks of code of a section, in their order."""
        found = []
        for language, code in FENCED.findall(self.section(title)):
            named = TITLE.match(code.partition("\n")[0])
            found.append(Block(language, code, named[1] if named else None, bool(named and named[2])))
        return found

    def rows(self, title: str) -> list[list[str]]:
        """The cells of a section's table, without its head."""
        lines = [line for line in self.section(title).splitlines() if line.startswith("|")]
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


README = Page("README.md")
