"""Every test here runs against real server processes, one for each way to serve each adapter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters import chosen
from tests.servers.processes import (
    GTHREAD,
    LONG_LEASE,
    Server,
    Site,
    django,
    granian,
    gunicorn,
    hypercorn,
    site,
    uvicorn,
)

if not chosen():
    collect_ignore_glob = ["test_*.py"]
elif "flask" not in chosen():
    collect_ignore = ["test_fork.py"]

SERVERS: dict[str, dict[str, Server]] = {
    "django": {"sync": django(), "gthread": django(*GTHREAD)},
    "flask": {"sync": gunicorn("flask_app:app"), "gthread": gunicorn("flask_app:app", *GTHREAD)},
    "fastapi": {
        "uvicorn": uvicorn("fastapi_app:app"),
        "hypercorn": hypercorn("fastapi_app:app"),
        "granian": granian("fastapi_app:app"),
    },
    "starlette": {"uvicorn": uvicorn("starlette_app:app")},
}
SEVERAL_WORKERS: dict[str, dict[str, Server]] = {
    "django": {
        "sync, preloaded": django("--workers=2", "--preload"),
        "gthread, preloaded": django("--workers=2", "--preload", *GTHREAD),
    },
    "flask": {
        "sync, preloaded": gunicorn("flask_app:app", "--workers=2", "--preload"),
        "gthread, preloaded": gunicorn("flask_app:app", "--workers=2", "--preload", *GTHREAD),
    },
    "fastapi": {"uvicorn": uvicorn("fastapi_app:app", "--workers=2")},
    "starlette": {"uvicorn": uvicorn("starlette_app:app", "--workers=2")},
}


def of_chosen_adapters(servers: dict[str, dict[str, Server]]) -> list[object]:
    return [
        pytest.param(server, id=f"{adapter} {kind}")
        for adapter in chosen()
        for kind, server in servers[adapter].items()
    ]


FIRST_SERVERS = {adapter: dict([*kinds.items()][:1]) for adapter, kinds in SERVERS.items()}


@pytest.fixture(params=of_chosen_adapters(SERVERS))
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A site for this test, served by one worker."""
    with site(request.param, tmp_path) as running:
        yield running


@pytest.fixture(params=of_chosen_adapters(SERVERS))
def running_in_peace(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """Like `running`, for tests that do not kill processes."""
    with site(request.param, tmp_path, lease=LONG_LEASE) as running:
        yield running


@pytest.fixture(params=of_chosen_adapters(FIRST_SERVERS))
def running_in_one_way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """Like `running`, but with one server per adapter, for slow tests."""
    with site(request.param, tmp_path) as running:
        yield running


@pytest.fixture(params=of_chosen_adapters(SEVERAL_WORKERS))
def running_in_several_processes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A site for this test, served by two workers, of which none is killed."""
    with site(request.param, tmp_path, lease=LONG_LEASE) as running:
        yield running
