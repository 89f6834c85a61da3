"""Every test here runs once for each adapter, and for the core's own two entries, over real sockets.

And once more, as a slow test, for each server that people run an adapter under, in processes of its own. Tests marked
`policy` are about payloads and signatures alone, which no transport can change: they run on three entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from envoyou_core import Event, Handlers
from tests.adapters import chosen
from tests.contract.clients import AdapterClient, load, ways_into
from tests.contract.clients.process import WAYS, ProcessClient
from tests.contract.endpoint import SECRET, Endpoint, clock
from tests.contract.faults import Faults, everything_logged

Serve = Callable[..., Endpoint]

POLICY_ENTRIES = ["asgi", "wsgi", *(["django"] if "django" in chosen() else [])]
"""The core's two entries, and the adapter with its own inbox and settings."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "settings(**keywords): what the `Webhooks` of `endpoint` is made with")
    config.addinivalue_line("markers", "policy: concerns payloads and signatures only; runs on one entry of each kind")
    config.addinivalue_line("markers", "in_process: looks into the process that serves; runs on one entry an adapter")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose the entries that a test runs on."""
    if "stage" in metafunc.fixturenames:
        policy = metafunc.definition.get_closest_marker("policy") is not None
        in_process = metafunc.definition.get_closest_marker("in_process") is not None
        entries = POLICY_ENTRIES if policy else [*ways_into(chosen())] if in_process else [*_clients()]
        metafunc.parametrize("stage", entries, indirect=True, scope="package")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group the tests by server, and then by settings, so that servers are shared."""
    items.sort(key=lambda item: (_over(item), repr(_settings(item))))
    for item in items:
        # For the summary: the number of cases per way.
        item.user_properties.append(("contract over", _over(item)))


def _over(item: pytest.Item) -> str:
    if isinstance(item, pytest.Function) and "stage" in item.fixturenames:
        return str(item.callspec.params["stage"])
    return ""


def _settings(item: pytest.Item) -> dict[str, Any]:
    mark = item.get_closest_marker("settings")
    return dict(mark.kwargs) if mark else {}


KEPT = ("X-Shop-Region", "X-None")


class Stage:
    """Serves one endpoint at a time, as long as consecutive tests use the same settings."""

    def __init__(self, client: AdapterClient, folder: Path, database: str | None = None) -> None:
        self._client = client
        self._folder = folder
        self._database = database
        self._numbers = count(1)
        self._open = ExitStack()
        self._settings: dict[str, Any] | None = None
        self._endpoint: Endpoint | None = None

    def endpoint(self, settings: dict[str, Any]) -> Endpoint:
        """Return the running endpoint if it has these settings; otherwise replace it."""
        if self._endpoint is None or settings != self._settings:
            self.clear()
            self._endpoint = self.serve(_handlers(), **settings)
            self._settings = settings
        return self._endpoint

    def serve(self, handlers: Handlers, **settings: Any) -> Endpoint:
        """Replace the running endpoint, if any."""
        self.clear()
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        database = self._database or f"sqlite:///{folder / 'inbox.db'}"
        settings = {"secret": SECRET, "inbox": database, **settings}
        faults = Faults(folder)
        if isinstance(self._client, ProcessClient):
            served = self._open.enter_context(self._client.serve(handlers, **settings))
        else:
            self._open.enter_context(everything_logged(folder / "log"))
            served = self._open.enter_context(self._client.serve(handlers, **settings))
            faults.rig(served.webhooks)
        return Endpoint(served, database, folder, faults)

    def clear(self) -> None:
        """Stop the running endpoint."""
        self._endpoint = None
        self._open.close()


def handle(event: Event) -> None:
    pass


def _handlers() -> Handlers:
    handlers = Handlers()
    handlers.on("user.*")(handle)
    return handlers


def _clients() -> Iterator[Any]:
    yield from ways_into(chosen())
    if "django" in chosen():
        for database in ("postgres", "mariadb"):
            yield pytest.param(f"django on {database}", marks=[pytest.mark.slow, pytest.mark.service])
    for adapter in chosen():
        for server, way in WAYS[adapter].items():
            marks = [pytest.mark.slow, pytest.mark.servers, *([pytest.mark.service] if way.several else [])]
            yield pytest.param(f"{adapter} under {server}", marks=marks)


# For this package only: it overrides settings, which must not affect other tests.
@pytest.fixture(scope="package")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The adapter under test, with its server or database if the name includes one."""
    folder = tmp_path_factory.mktemp("stages")
    adapter, _, database = request.param.partition(" on ")
    with ExitStack() as running:
        if " under " in request.param:
            several = "workers" in request.param
            redis = (request.getfixturevalue("redis_url"), request.getfixturevalue("redis_prefix")) if several else None
            client = running.enter_context(ProcessClient(request.param, folder, redis).running())
        else:
            client = load(adapter)
        url = request.getfixturevalue(f"{database}_url") if database else None
        stage = Stage(client, folder, url)
        running.callback(stage.clear)
        yield stage


@pytest.fixture
def endpoint(stage: Stage, request: pytest.FixtureRequest) -> Endpoint:
    """A served endpoint. Its clock is fixed at `NOW`, and it has no worker.

    Its settings are those of the mark `settings`. Tests with the same settings share it.
    """
    # With headers to keep, so that no server is started for the one test of these.
    return stage.endpoint({"clock": clock, "handoff": "manual", "kept_headers": KEPT, **_settings(request.node)})


@pytest.fixture
def serve(stage: Stage) -> Iterator[Serve]:
    """Serve an endpoint for this test only, with these handlers and settings, on the system's clock."""
    yield stage.serve
    stage.clear()
