"""The README, and pages like it, as a reader follows them: sections, and in each the blocks of code in their order."""

import re
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
README = PROJECT / "README.md"

FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
DJANGO_PAGE = PROJECT / "docs" / "django.md"

TITLE = re.compile(r"# ([\w/]+\.py)( \(add\))?$")


@dataclass(frozen=True)
class Block:
    """A block of code: commands for a console, or Python, which may be a file or what is added to one."""

    language: str
    code: str
    file: str | None = None
    adds: bool = False


QUICKSTARTS = {"django": "Django", "flask": "Flask", "fastapi": "FastAPI", "starlette": "Starlette"}
"""From an adapter to the name of its framework."""


def titles(page: Path = README) -> list[str]:
    """The headings of the second level."""
    return re.findall(r"^## (.+)$", page.read_text(), flags=re.MULTILINE)


def section(title: str, page: Path = README) -> str:
    """The text under a heading of the second level."""
    parts = re.split(r"^## (.+)\n", page.read_text(), flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    return found[title]


def blocks(title: str, page: Path = README) -> list[Block]:
    """The blocks of code of a section, in their order."""
    found = []
    for language, code in FENCED.findall(section(title, page)):
        named = TITLE.match(code.partition("\n")[0])
        found.append(Block(language, code, named[1] if named else None, bool(named and named[2])))
    return found


def rows(title: str, page: Path = README) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    lines = [line for line in section(title, page).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
