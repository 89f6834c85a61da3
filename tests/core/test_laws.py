"""Law 1, imports run one way, and law 5, optional dependencies are imported where they are used."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.core.imports import (
    FRAMEWORKS,
    FRAMEWORKS_OF,
    Module,
    breaks_in_adapter,
    breaks_in_core,
    exports_of,
    modules_of,
)
from tests.public_modules import PUBLIC_MODULES

CORE = Path(find_spec("envoyou_core").origin).parent
CORE_MODULES = list(modules_of(CORE))
EXPORTS = exports_of(CORE_MODULES, PUBLIC_MODULES)
ADAPTER_MODULES = [module for adapter in FRAMEWORKS_OF for module in modules_of(CORE.parent / adapter)]

OPTIONAL = {
    *FRAMEWORKS,
    "celery",
    "click",
    "dramatiq",
    "httpx",
    "httpx2",
    "opentelemetry",
    "prometheus_client",
    "psycopg",
    "pydantic",
    "pymysql",
    "pytest",
    "redis",
    "requests",
    "rich",
    "rq",
    "sqlalchemy",
    "typer",
    "uvicorn",
    "valkey",
}
"""What a user may have installed, and `import envoyou_core` must not touch."""

ALLOWED = sys.stdlib_module_names | {"envoyou_core", "msgspec", "typing_extensions"}
"""msgspec takes typing_extensions where it is installed, and does without it elsewhere."""


def by_name(module):
    return module.name


# Law 1: the real sources


@pytest.mark.parametrize("module", CORE_MODULES, ids=by_name)
def test_the_core_imports_no_framework_and_no_adapter(module):
    assert breaks_in_core(module) == []


@pytest.mark.parametrize("module", ADAPTER_MODULES, ids=by_name)
def test_an_adapter_imports_public_names_of_the_core_and_no_other_adapter(module):
    assert breaks_in_adapter(module, EXPORTS) == []


def test_every_public_module_is_read():
    assert EXPORTS.keys() == {name for name in PUBLIC_MODULES if name.partition(".")[0] == "envoyou_core"}
    assert EXPORTS["envoyou_core"] >= {"Webhooks", "Event", "WebhookRequest", "sign", "verify"}
    assert EXPORTS["envoyou_core.testing"] >= {"sample_event", "sign_delivery"}
    assert {module.name.partition(".")[0] for module in ADAPTER_MODULES} == FRAMEWORKS_OF.keys()


# Law 1: made-up sources, which show that the readers above can fail


@pytest.mark.parametrize(
    "source",
    [
        "import django",
        "import flask.json",
        "import json, starlette.requests as requests",
        "from fastapi import APIRouter",
        "from envoyou_django.models import ProcessedEvent",
        "def later():\n    import werkzeug",
        "if TYPE_CHECKING:\n    from django.http import HttpRequest",
        "try:\n    import flask\nexcept ImportError:\n    flask = None",
        "importlib.import_module('django.apps')",
        "__import__('envoyou_flask')",
    ],
)
def test_a_core_module_that_breaks_law_1_is_found(source):
    assert breaks_in_core(Module("envoyou_core.http", source)) != []


@pytest.mark.parametrize(
    "source",
    [
        "import json, msgspec",
        "from .event import Event",
        "from envoyou_core import errors",
        "import sqlalchemy",
        "from . import flask",
        "text = 'import django'",
    ],
)
def test_a_core_module_that_keeps_law_1_is_not(source):
    assert breaks_in_core(Module("envoyou_core.http", source)) == []


MADE_UP_EXPORTS = exports_of(
    [
        Module("envoyou_core", "__all__ = ['Webhooks', 'verify']", is_package=True),
        Module("envoyou_core.inbox", "__all__: list[str] = ['Inbox']", is_package=True),
        Module("envoyou_core.inbox.sql", "__all__ = ('SqlInbox',)"),
        Module("envoyou_core.reception.receiver", "__all__ = ['Receiver']"),
    ],
    public={"envoyou_core", "envoyou_core.inbox", "envoyou_core.inbox.sql"},
)


@pytest.mark.parametrize(
    "source",
    [
        "from envoyou_core import Receiver",
        "from envoyou_core import _cache",
        "from envoyou_core import *",
        "from envoyou_core import reception",
        "import envoyou_core.reception.receiver",
        "from envoyou_core.reception.receiver import Receiver",
        "from envoyou_core.inbox import rows",
        "from envoyou_core.inbox.rows import Row",
        "from envoyou_core.inbox.sql import engine",
        "import envoyou_core\nenvoyou_core.reception.Receiver",
        "import envoyou_core\nprint(envoyou_core._version)",
        "import envoyou_core.inbox\nenvoyou_core.inbox.sql._lock",
        "import envoyou_core.inbox.sql as store\nstore.engine.connect()",
        "from envoyou_core import inbox\ninbox.claim()",
        "def view():\n    from envoyou_core.reception.receiver import Receiver",
        "importlib.import_module('envoyou_core.reception.receiver')",
        "from envoyou_django import webhooks",
        "import envoyou_fastapi.starlette",
        "import django",
        "from starlette.requests import Request",
    ],
)
def test_an_adapter_module_that_breaks_law_1_is_found(source):
    assert breaks_in_adapter(Module("envoyou_flask.blueprint", source), MADE_UP_EXPORTS) != []


@pytest.mark.parametrize(
    "source",
    [
        "from envoyou_core import Webhooks, verify as check",
        "from envoyou_core import inbox\ninbox.sql.SqlInbox('...').claim()",
        "from envoyou_core.inbox import Inbox, sql",
        "import envoyou_core.inbox.sql\nenvoyou_core.inbox.sql.SqlInbox._anything",
        "import envoyou_core as core\ncore.Webhooks(secret='...').receive",
        "from flask import Blueprint\nfrom werkzeug.exceptions import NotFound",
        "from . import cli\nfrom .cli import command\nfrom envoyou_flask.cli import command",
        "self.webhooks._name",
    ],
)
def test_an_adapter_module_that_keeps_law_1_is_not(source):
    assert breaks_in_adapter(Module("envoyou_flask.blueprint", source), MADE_UP_EXPORTS) == []


# Law 5: every optional library is on the path as an empty stand-in, so that touching one shows
# even where it is not installed and even inside `try: ... except ImportError`.


def imported_by(statement, *places):
    """The modules that an interpreter imports for ``statement``, beyond its own start."""

    path = os.pathsep.join(str(place) for place in places)
    environment = {name: it for name, it in os.environ.items() if "COVERAGE" not in name}

    def names(code):
        run = subprocess.run(
            [sys.executable, "-P", "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
            env=environment | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert run.returncode == 0, run.stderr
        return set(run.stdout.split())

    return names(statement) - names("pass")


@pytest.fixture
def stand_ins(tmp_path):
    folder = tmp_path / "stand_ins"
    for name in OPTIONAL:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").touch()
    return folder


def strangers(modules):
    return {module for module in modules if module.partition(".")[0] not in ALLOWED}


@pytest.mark.parametrize(
    "statement", ["import envoyou_core", "from envoyou_core import *", "import envoyou_core.adapter"]
)
def test_the_core_loads_nothing_but_the_standard_library_and_msgspec(statement, stand_ins):
    modules = imported_by(statement, stand_ins, CORE.parent)
    assert "envoyou_core" in modules
    assert strangers(modules) == set()
    # Large parts of the standard library, which every process that only imports a handler module would pay for.
    assert modules.isdisjoint({"asyncio", "sqlite3", "ssl"})


NOTICES = {"attempt_notices", "delivery_notices", "storage_notices", "worker_notices"}


def test_the_package_loads_no_module_before_one_of_its_names_is_used():
    modules = imported_by("import envoyou_core", CORE.parent)
    assert {module for module in modules if module.startswith("envoyou_core")} == {"envoyou_core"}


def test_verification_alone_loads_neither_handlers_nor_an_inbox():
    loaded = imported_by("from envoyou_core import verify", CORE.parent)
    assert "envoyou_core.reception.verification" in loaded
    others = re.compile(r"envoyou_core\.(handler|inbox|lifecycle|observability|worker)")
    assert not {module for module in loaded if others.match(module)}


def test_an_application_loads_no_notice_no_worker_and_no_inbox_before_it_needs_them():
    # Classes are costly to define, and each process and command of an application does so at its start.
    loaded = imported_by("from envoyou_core import Event, Handlers, Webhooks", CORE.parent)
    assert "envoyou_core.webhooks" in loaded
    assert loaded.isdisjoint({f"envoyou_core.observability.{name}" for name in NOTICES})
    assert {module for module in loaded if module.startswith("envoyou_core.inbox.")} == {
        f"envoyou_core.inbox.{name}" for name in ("history", "protocol", "records")
    }
    others = re.compile(r"envoyou_core\.(alerts\.(?!config)|analytics|reception\.(captures|secret_cache)|worker)")
    assert not {module for module in loaded if others.match(module)}
    assert loaded.isdisjoint({"base64", "difflib", "pathlib", "random", "urllib.parse"})


@pytest.mark.parametrize(
    "source",
    [
        "import sqlalchemy",
        "try:\n    import redis\nexcept ImportError:\n    redis = None",
        "from .store import connect",
        "import importlib\nimportlib.import_module('celery')",
    ],
)
def test_a_package_that_breaks_law_5_is_found(source, stand_ins, tmp_path):
    package = tmp_path / "made_up"
    package.mkdir()
    (package / "__init__.py").write_text(source)
    (package / "store.py").write_text("import httpx\ndef connect(): ...")
    modules = imported_by("import made_up", stand_ins, tmp_path)
    assert strangers(modules) - {"made_up", "made_up.store"} != set()


def test_a_package_that_keeps_law_5_is_not(stand_ins, tmp_path):
    package = tmp_path / "made_up"
    package.mkdir()
    (package / "__init__.py").write_text("import json\ndef connect():\n    import redis")
    assert strangers(imported_by("import made_up", stand_ins, tmp_path)) == {"made_up"}
