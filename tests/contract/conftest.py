"""Every test here runs once for each adapter, and for the core's own two entries, over real sockets."""

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

pytest.register_assert_rewrite("tests.contract.endpoint")

from tests.contract.endpoint import NOW, SECRET, Endpoint  # noqa: E402

Serve = Callable[..., Endpoint]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "settings(**keywords): what the `Webhooks` of `endpoint` is made with")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests that ask for the same settings follow each other: they share one server."""
    items.sort(key=lambda item: repr(_settings(item)))


def _settings(item: pytest.Item) -> dict[str, Any]:
    mark = item.get_closest_marker("settings")
    return dict(mark.kwargs) if mark else {}


@pytest.fixture(scope="session", params=ways_into(chosen()))
def client(request: pytest.FixtureRequest) -> AdapterClient:
    """The adapter that the test is run against."""
    return load(request.param)


class Stage:
    """Where one endpoint at a time is being served, for as long as tests ask for the same settings."""

    def __init__(self, client: AdapterClient, folder: Path) -> None:
        self._client = client
        self._folder = folder
        self._numbers = count(1)
        self._open = ExitStack()
        self._settings: dict[str, Any] | None = None
        self._endpoint: Endpoint | None = None

    def endpoint(self, settings: dict[str, Any]) -> Endpoint:
        """The endpoint that runs, if it has these settings, else a new one in its place."""
        if self._endpoint is None or settings != self._settings:
            self.clear()
            self._endpoint = self.serve(_handlers(), **settings)
            self._settings = settings
        return self._endpoint

    def serve(self, handlers: Handlers, **settings: Any) -> Endpoint:
        """A new endpoint in the place of whatever runs."""
        self.clear()
        database = self._folder / f"inbox-{next(self._numbers)}.db"
        settings = {"secret": SECRET, "inbox": f"sqlite:///{database}", **settings}
        served = self._open.enter_context(self._client.serve(handlers, **settings))
        return Endpoint(served, served.database or database)

    def clear(self) -> None:
        """End what runs."""
        self._endpoint = None
        self._open.close()


def _handlers() -> Handlers:
    handlers = Handlers()

    @handlers.on("user.*")
    def handle(event: Event) -> None:
        pass

    return handlers


@pytest.fixture(scope="session")
def stage(client: AdapterClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stage = Stage(client, tmp_path_factory.mktemp(client.name))
    yield stage
    stage.clear()


@pytest.fixture
def endpoint(stage: Stage, request: pytest.FixtureRequest) -> Endpoint:
    """An endpoint that is being served. Its clock stands at `NOW`, and nobody works off its inbox.

    Its settings are those of the mark `settings`. Tests that ask for the same ones share it.
    """
    return stage.endpoint({"clock": clock, "handoff": "manual", **_settings(request.node)})


@pytest.fixture
def serve(stage: Stage) -> Iterator[Serve]:
    """Serve an endpoint of the test's own, with these handlers and settings, on the system's clock."""
    yield stage.serve
    stage.clear()


def clock() -> float:
    return NOW
