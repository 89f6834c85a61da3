"""The databases of the reliability tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import services
from tests.adapters import chosen

if not {"flask", "fastapi"} & set(chosen()):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.service)])
def inbox_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a new database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'inbox.db'}"
    else:
        with services.database(request.getfixturevalue("postgres_server")) as url:
            yield url
