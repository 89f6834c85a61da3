"""There is one list of public modules: the code, `CONTRIBUTING.md` and the reference agree with it."""

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

import envoyou_core
from envoyou_core import adapter, errors, inbox, observability
from tests.core.imports import exports_of, modules_of
from tests.public_modules import PUBLIC_MODULES

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
PACKAGES = {name.partition(".")[0] for name in PUBLIC_MODULES}
EXPORTS = {
    name: names
    for package in PACKAGES
    # Read, not imported: importing needs the framework.
    for name, names in exports_of(modules_of(Path(find_spec(package).origin).parent), PUBLIC_MODULES).items()
}
IMPORT = re.compile(r"^ *(?:from (envoyou_\S+) import (?:\(([^)]*)\)|(.+))|import (envoyou_\S+))", re.MULTILINE)


def python_in(page):
    return "\n".join(re.findall(r"^ *```python\n(.*?)^ *```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE))


def section(page, heading):
    text = (PROJECT / page).read_text(encoding="utf-8")
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_every_public_module_says_what_it_exports():
    assert EXPORTS.keys() == set(PUBLIC_MODULES)
    assert list(PUBLIC_MODULES) == sorted(set(PUBLIC_MODULES))


def test_every_error_can_be_imported_from_the_package():
    assert EXPORTS["envoyou_core.errors"] <= EXPORTS["envoyou_core"]


def test_the_contributing_guide_lists_them():
    assert re.findall(r"^- `(\S+)`", section("CONTRIBUTING.md", "Public names"), re.MULTILINE) == list(PUBLIC_MODULES)


def test_the_reference_has_a_page_for_each():
    assert sorted(path.stem for path in (PROJECT / "docs/reference").iterdir()) == list(PUBLIC_MODULES)
    overview = (PROJECT / "docs/reference.md").read_text(encoding="utf-8")
    linked = re.findall(r"^\| \[`(\S+)`\]\(reference/(\S+)\.md\)", overview, re.MULTILINE)
    assert sorted(linked) == [(name, name) for name in PUBLIC_MODULES]


def test_the_table_of_errors_has_the_status_the_code_and_the_reason_of_each():
    page = (PROJECT / "docs/reference/envoyou_core.errors.md").read_text(encoding="utf-8")
    row = re.compile(r"^\| (\d+) \| `(\w+)` \| \[`(\w+)`\]\(#envoyou_core\.errors\.\3\) \| `(\w+)` \|$", re.MULTILINE)
    answers = {it for it in vars(errors).values() if isinstance(it, type) and issubclass(it, errors.WebhookError)}
    answers -= {errors.WebhookError, errors.WebhookVerificationError}  # base classes, never raised themselves
    assert sorted(row.findall(page)) == sorted((str(it.status), it.code, it.__name__, it.reason) for it in answers)


@pytest.mark.parametrize(
    "page", [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))], ids=lambda p: p.name
)
def test_the_documentation_imports_public_names_only(page):
    for module, in_parentheses, on_the_line, alone in IMPORT.findall(python_in(page)):
        assert (module or alone) in EXPORTS
        for name in filter(None, re.split(r"[,\s]+", in_parentheses or on_the_line)):
            assert name in EXPORTS[module] or f"{module}.{name}" in EXPORTS, f"{module}.{name} is not public"


@pytest.mark.parametrize("module", [envoyou_core, adapter, inbox, observability], ids=lambda module: module.__name__)
def test_names_that_a_module_loads_on_first_use_are_declared_for_type_checkers(module):
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    [declared] = (node.body for node in tree.body if isinstance(node, ast.If))
    homes = {alias.name: node.module for node in declared for alias in node.names}
    assert homes == module._LOADED_ON_FIRST_USE
    assert homes.keys() <= set(module.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        module.no_such_name  # noqa: B018


def test_an_interpreter_completes_names_that_are_not_loaded_yet():
    assert set(dir(envoyou_core)) >= EXPORTS["envoyou_core"]
