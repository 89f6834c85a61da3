"""The code that the documentation and the examples show, as a user's type checker sees it: mypy --strict and pyright.

    python -m tests.typing.user_code FOLDER

writes the code of the pages into FOLDER and checks it there. It ends 1 where a checker finds something.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.documentation.pages import PROJECT, README, Page

PAGES = [f"docs/{name}.md" for name in ("fastapi-guide", "flask-guide", "secrets", "starlette")]
EXAMPLES = ("example_projects/fastapi_app", "example_projects/flask_app")
TESTS = PROJECT / "tests" / "typing" / "testing.py"
"""What the tests of a user may look like."""


def write_page(page: Page, folder: Path) -> None:
    """Write a page's Python into `folder`, with the `hooks.py` that it continues. Pieces without a name get one."""
    blocks = [block for block in page.all_blocks() if block.language == "python" and "test_" not in (block.file or "")]
    assert blocks, f"{page.path} shows no Python"
    folder.mkdir(parents=True)
    (hooks,) = [block for block in README.blocks("Quickstart: FastAPI") if block.file == "hooks.py"]
    (folder / "hooks.py").write_text(hooks.code, encoding="utf-8")
    for number, block in enumerate(blocks, start=1):
        (folder / (block.file or f"snippet_{number}.py")).write_text(block.code, encoding="utf-8")


def check(folder: Path, cache: Path) -> bool:
    """Whether both checkers are content with the code in `folder`; what they say is shown."""
    print(f"== {folder.name}", flush=True)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={cache}", "."]
    pyright = [sys.executable, "-m", "pyright", f"--pythonpath={sys.executable}", "."]
    ended = [subprocess.run(command, cwd=folder).returncode for command in (mypy, pyright)]
    return not any(ended)


def main(folder: Path) -> int:
    """Check everything; returns the exit code."""
    shutil.rmtree(folder, ignore_errors=True)
    for path in PAGES:
        write_page(Page(path), folder / Path(path).stem)
    for path in EXAMPLES:
        shutil.copytree(PROJECT / path, folder / Path(path).name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests_of_a_user").mkdir()
    shutil.copy(TESTS, folder / "tests_of_a_user")
    content = [check(it, folder / ".mypy_cache") for it in sorted(folder.iterdir())]
    return 0 if all(content) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute()))
