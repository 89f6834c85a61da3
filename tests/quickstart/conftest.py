"""The quickstarts make environments of their own; what is left to choose is which of them this run tests."""

import pytest

from tests.adapters import chosen
from tests.quickstart.reader import Reader

collect_ignore = [] if chosen() else ["test_quickstarts.py", "test_pages.py"]


@pytest.fixture
def reader(tmp_path):
    """Someone in an empty folder and an empty environment."""
    reader = Reader(tmp_path)
    yield reader
    reader.leave()
