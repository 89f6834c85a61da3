"""Selects the quickstarts of the chosen adapters."""

import pytest

from tests.adapters import chosen
from tests.quickstart.reader import Reader

collect_ignore = [] if chosen() else ["test_quickstarts.py", "test_pages.py"]
if "flask" not in chosen():
    collect_ignore.append("test_flask_app.py")


@pytest.fixture
def reader(tmp_path):
    """A reader in an empty directory and a new virtual environment."""
    reader = Reader(tmp_path)
    yield reader
    reader.leave()
