"""The pytest plugin of envoyou-webhooks: fixtures that deliver signed events to an application and run its handlers.

pytest imports this module in every project that has the distribution installed, before coverage is measured. So it is
outside of the packages that it tests, and imports nothing of them until a fixture is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from envoyou_core import Webhooks
    from envoyou_core.simulator import Platform
    from envoyou_core.testing import AcceptedEvents, AsyncDeliver, Deliver
    from envoyou_core.testing.kit import WebhooksKit

__all__ = [
    "envoyou_adeliver",
    "envoyou_app",
    "envoyou_deliver",
    "envoyou_events",
    "envoyou_path",
    "envoyou_platform",
    "envoyou_webhooks",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of pytest's configuration file that names the application."""
    parser.addini("envoyou_app", "The application that receives EnvoyOU webhooks, such as app:app or app:create_app().")


@pytest.fixture
def envoyou_app(request: pytest.FixtureRequest) -> object:
    """The application under test. Define a fixture of this name to return your own.

    It may be a Flask app, a FastAPI, Starlette or other ASGI application, `envoyou_django.webhooks`, a `Webhooks`
    object, or a test client of the application. By default, the first of: `envoyou_app` in pytest's configuration; the
    fixture `app`; `ENVOYOU_APP`, or `app` in `[tool.envoyou]` of pyproject.toml; a configured Django project.
    """
    from pytest_envoyou.applications import find_application

    return find_application(request)


@pytest.fixture
def envoyou_path() -> str | None:
    """The path that receives webhooks; `None` to find it in the application. Define a fixture to name it."""
    return None


@pytest.fixture
def _envoyou_kit(
    request: pytest.FixtureRequest, envoyou_app: object, envoyou_path: str | None
) -> Iterator[WebhooksKit]:
    from pytest_envoyou.kits import running_kit

    with running_kit(request, envoyou_app, envoyou_path) as kit:
        yield kit


@pytest.fixture
def envoyou_webhooks(_envoyou_kit: WebhooksKit) -> Webhooks:
    """The application's own `Webhooks` object. During the test it starts no worker, whatever `handoff` is.

    Its inbox is an empty one in memory, unless it belongs to the application's database.
    """
    return _envoyou_kit.webhooks


@pytest.fixture
def envoyou_deliver(_envoyou_kit: WebhooksKit) -> Deliver:
    """Deliver an event through the application's route, and run its handlers. What they raise is raised."""
    from envoyou_core.testing import Deliver

    return Deliver(_envoyou_kit)


@pytest.fixture
def envoyou_adeliver(_envoyou_kit: WebhooksKit) -> AsyncDeliver:
    """Deliver an event as `envoyou_deliver` does, in an async test."""
    from envoyou_core.testing import AsyncDeliver

    return AsyncDeliver(_envoyou_kit)


@pytest.fixture
def envoyou_events(_envoyou_kit: WebhooksKit) -> AcceptedEvents:
    """The events that were accepted during the test, and what became of each."""
    return _envoyou_kit.events


@pytest.fixture
def envoyou_platform() -> Iterator[Platform]:
    """Run a local EnvoyOU platform for one test; requires the extra `simulator`."""
    from envoyou_core.simulator import Platform

    with Platform() as platform:
        yield platform
