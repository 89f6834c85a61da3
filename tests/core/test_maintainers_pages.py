"""What `ARCHITECTURE.md` and `SECURITY.md` name exists: tests, files, classes and their members."""

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.text

PROJECT = Path(__file__).parents[2]
PAGES = ("ARCHITECTURE.md", "SECURITY.md")
TEXTS = {page: (PROJECT / page).read_text(encoding="utf-8") for page in PAGES}
TESTS = [(page, name) for page, text in TEXTS.items() for name in sorted(set(re.findall(r"`(tests/[^`]+)`", text)))]
MEMBERS = sorted(set(re.findall(r"\b([A-Z]\w+)\.([a-z]\w+)", TEXTS["ARCHITECTURE.md"].replace(".md", ""))))


def classes():
    """Each class of the packages by its name, with the names of its bases and of its members."""
    defined = {}
    for path in PROJECT.glob("envoyou_*/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
                members = {it.name for it in node.body if isinstance(it, ast.FunctionDef | ast.AsyncFunctionDef)}
                defined[node.name] = (bases, members)
    return defined


CLASSES = classes()


def members_of(name):
    bases, members = CLASSES.get(name, ((), set()))
    return members.union(*map(members_of, bases))


@pytest.mark.parametrize(("page", "name"), TESTS, ids=[name for _, name in TESTS])
def test_every_test_that_is_named_exists(page, name):
    path, _, function = name.partition("::")
    assert (PROJECT / path).exists()
    if function:
        tree = ast.parse((PROJECT / path).read_text(encoding="utf-8"))
        assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("owner", "member"), MEMBERS, ids=[".".join(it) for it in MEMBERS])
def test_every_method_that_is_named_exists(owner, member):
    assert member in members_of(owner)


def test_every_module_of_the_layout_exists():
    layout = TEXTS["ARCHITECTURE.md"].partition("```text\n")[2].partition("```")[0]
    named = re.findall(r"\b[a-z_]+(?:\.py|/)", layout)
    assert len(named) > 30
    existing = {path.name + ("/" if path.is_dir() else "") for path in PROJECT.glob("*/**/*")}
    existing |= {f"{path.name}/" for path in PROJECT.iterdir() if path.is_dir()}
    assert set(named) <= existing


def test_the_page_stays_short():
    assert TEXTS["ARCHITECTURE.md"].count("\n") < 300
