"""Follows every page of the documentation, from top to bottom, as a reader would. Each block is run.

Blocks that cannot be run here are listed in `NOT_RUN`, each with a parser of its language, or with the reason.
"""

import configparser
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

from tests.adapters import chosen
from tests.documentation.pages import PAGES, Page

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Walk:
    """How a reader comes to a page.

    Attributes:
        after: the quickstarts done before, as fixtures of directories; none for an empty directory.
        serving: whether the server of that quickstart is running.
        needs: the adapters that the page uses.
        exports: what was exported before, so that nothing outside of this machine is asked.
        services: texts on the page that stand for the URL of a service, by the fixture that has it.
    """

    after: tuple[str, ...] = ()
    serving: bool = False
    needs: tuple[str, ...] = ()
    exports: str = ""
    services: tuple[tuple[str, str], ...] = ()


APPLICATION = ("application",)
PROJECT = ("django_project",)
POSTGRES = (("postgresql+psycopg://shop@db.example.com/shop", "postgres_url"),)

WALKS = {
    "django": Walk(needs=("django",)),
    "flask": Walk(needs=("flask",)),
    "fastapi": Walk(needs=("fastapi",)),
    "starlette": Walk(needs=("starlette",)),
    "handlers": Walk(APPLICATION),
    "testing": Walk(APPLICATION, needs=("fastapi", "flask")),
    "django-testing": Walk(PROJECT, needs=("django",)),
    "development": Walk(APPLICATION, serving=True, needs=("fastapi",)),
    "simulator": Walk(APPLICATION, serving=True, needs=("fastapi",)),
    "prove": Walk(APPLICATION, needs=("fastapi",)),
    "client": Walk(APPLICATION),
    "requeue": Walk(APPLICATION),
    "pause": Walk(APPLICATION),
    "retention": Walk(APPLICATION),
    "analytics": Walk(APPLICATION),
    "observability": Walk(APPLICATION, needs=("fastapi",)),
    "alerts": Walk(APPLICATION, serving=True, needs=("fastapi",)),
    "deploy": Walk(APPLICATION, services=POSTGRES),
    "databases": Walk((*APPLICATION, *PROJECT), needs=("django",), services=POSTGRES),
    "scale": Walk(APPLICATION, needs=("fastapi",)),
    "task-queues": Walk(PROJECT, needs=("django",)),
    "serverless": Walk(APPLICATION),
    "secrets": Walk(APPLICATION),
    "django-guide": Walk(PROJECT, needs=("django",)),
    "flask-guide": Walk(needs=("flask",)),
    "fastapi-guide": Walk(APPLICATION, needs=("fastapi",)),
    "other-frameworks": Walk(APPLICATION),
    "cli": Walk(APPLICATION, serving=True, needs=("fastapi",)),
    "responses": Walk(APPLICATION, serving=True, needs=("fastapi",)),
    "notices": Walk(APPLICATION),
    "tables": Walk((*APPLICATION, *PROJECT), needs=("django",)),
    "django-checks": Walk(PROJECT, needs=("django",)),
    "health": Walk(APPLICATION, needs=("fastapi", "flask")),
    "doctor": Walk(APPLICATION, needs=("fastapi",), exports="export ENVOYOU_BASE_URL=http://127.0.0.1:9"),
    "verify": Walk(APPLICATION, needs=("fastapi",)),
    "troubleshooting": Walk(APPLICATION),
}
"""Each page that has blocks to run, by its name."""


def parse_unit(text):
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read_string(text)
    assert unit["Service"]["ExecStart"]


def parse_yaml(text):
    assert yaml.safe_load(re.sub(r"!(Ref|Sub)\b", "", text))


def parse_nginx(text):
    """Parse the configuration with nginx if it is installed, otherwise check its blocks and statements."""
    statements = re.sub(r"\{|\}", ";", text)
    assert text.count("{") == text.count("}")
    assert statements.rstrip().endswith(";")
    if shutil.which("nginx"):
        with TemporaryDirectory() as folder:
            configuration = Path(folder, "nginx.conf")
            configuration.write_text(
                f"pid {folder}/nginx.pid; error_log stderr; events {{}} "
                f"http {{ access_log off; server {{ listen unix:{folder}/socket; {text} }} }}"
            )
            # The options replace the folder and the log that nginx has been built with.
            subprocess.run(["nginx", "-t", "-p", folder, "-e", "stderr", "-c", configuration], check=True)


NOT_RUN: dict[tuple[str, str], Callable[[str], object] | str] = {
    ("development", "cloudflared tunnel --url http://127.0.0.1:8000"): "a tunnel needs the internet",
    ("deploy", "# /etc/systemd/system/envoyou-worker.service"): parse_unit,
    ("deploy", "# worker.yaml"): parse_yaml,
    ("deploy", "location = /webhooks/envoyou {"): parse_nginx,
    ("health", "envoyou --app hooks:webhooks worker --health-port 8081"): "tests/core/test_health.py runs it",
    ("health", "# deployment.yaml"): parse_yaml,
    ("health", "# /etc/systemd/system/envoyou-health.service"): parse_unit,
    ("serverless", "Drain:"): parse_yaml,
    ("how-it-works", "received ──> processing ──> processed"): "a diagram",
    ("performance", f"make bench{' ' * 40}# without growth, admin and memory: half an hour"): "takes long",
    ("task-queues", 'pip install "envoyou-webhooks[celery]"'): "tests/servers/test_task_queues.py runs it",
    ("task-queues", "dramatiq dramatiq_hooks"): "tests/servers/test_task_queues.py runs it",
    ("task-queues", 'rq worker webhooks --url "$BROKER_URL"'): "tests/servers/test_task_queues.py runs it",
    ("task-queues", "pip install django-tasks-db"): "tests/django/test_task_queues.py runs it",
}
"""Blocks by page and first line."""

BY_OTHERS = {"index"}
"""Pages that another test follows."""


def blocks_of(name):
    """Return the blocks of a page that are run, and those that are not."""
    run, not_run = [], []
    for block in Page(f"docs/{name}.md").all_blocks():
        first_line = block.code.partition("\n")[0]
        (not_run if (name, first_line) in NOT_RUN else run).append(block)
    return run, not_run


def can_run(walk):
    return set(walk.needs) <= set(chosen())


@pytest.mark.parametrize("name", [name for name, walk in WALKS.items() if can_run(walk)])
def test_a_reader_can_follow_the_page(name, reader, continue_from, request):
    walk = WALKS[name]
    run, _ = blocks_of(name)
    for shown, fixture in walk.services:
        reader.replace(shown, request.getfixturevalue(fixture))
    reader.replace("/srv/app/", f"{reader.folder}/")
    continue_from(*walk.after)
    reader.type(walk.exports)
    if walk.serving:
        reader.type("uvicorn app:app")
    reader.follow(run)


def test_every_page_with_blocks_is_followed():
    with_blocks = {page.path.removeprefix("docs/").removesuffix(".md") for page in PAGES[1:] if blocks_of_page(page)}
    assert with_blocks - BY_OTHERS == WALKS.keys() & with_blocks
    assert WALKS.keys() <= with_blocks


def blocks_of_page(page):
    return blocks_of(page.path.removeprefix("docs/").removesuffix(".md"))[0]


def test_every_block_that_is_not_run_is_parsed_or_explained():
    found = []
    for name in {name for name, _ in NOT_RUN}:
        for block in blocks_of(name)[1]:
            first_line = block.code.partition("\n")[0]
            found.append((name, first_line))
            parse = NOT_RUN[name, first_line]
            if callable(parse):
                parse(block.code)
    assert sorted(found) == sorted(NOT_RUN)
