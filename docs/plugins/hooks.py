"""What the build does to the pages beyond Markdown."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from textwrap import indent

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

README = Path(__file__).parents[2] / "README.md"
QUICKSTARTS = "<!-- The quickstarts of the README, in tabs. -->"
SECTION = re.compile(r"^## Quickstart: ([^\n]+)\n(.*?)(?=^## )", re.DOTALL | re.MULTILINE)
PICTURE = re.compile(r'(<p>)?<img alt="[^"]*" src="(?P<address>[^"]+\.svg)" ?/?>(?(1)</p>)')


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Show the quickstarts of the README, so that they are written once."""
    return markdown.replace(QUICKSTARTS, quickstarts()) if QUICKSTARTS in markdown else markdown


def quickstarts() -> str:
    """Return one tab for each quickstart of the README. Its links are relative to the project, not to `docs`."""
    sections = SECTION.findall(README.read_text(encoding="utf-8"))
    if not sections:
        raise PluginError(f"{README} has no section `## Quickstart: ...`")
    return "\n".join(
        f'=== "{framework}"\n\n' + indent(text.replace("](docs/", "]("), " " * 4) for framework, text in sections
    )


def on_page_content(html: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put SVG pictures into the page itself, so that they follow its colours and its font."""

    def inlined(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(page.url, found["address"]))
        if (file := files.get_file_from_path(path)) is None:
            raise PluginError(f"{page.file.src_path} shows {path}, which does not exist")
        # It can be scrolled where it is wider than the screen, with the keyboard as well.
        return f'<figure class="picture" tabindex="0">{file.content_string}</figure>'

    return PICTURE.sub(inlined, html)


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Name the search dialog for screen readers, which the theme does not."""
    dialog = 'data-md-component="search" role="dialog"'
    return output.replace(dialog, f'{dialog} aria-label="Search"')
