"""Fixtures for pytest: `pytest_plugins = ["envoyou_core.testing.fixtures"]` in a `conftest.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from envoyou_core.simulator import Platform

__all__ = ["envoyou_platform"]


@pytest.fixture
def envoyou_platform() -> Iterator[Platform]:
    """Run a local EnvoyOU platform for one test; requires the extra `simulator`."""
    # Imported here, so that the plugin can be loaded without the extra.
    from envoyou_core.simulator import Platform

    with Platform() as platform:
        yield platform
