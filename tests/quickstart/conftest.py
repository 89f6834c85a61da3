"""The quickstarts make environments of their own; what is left to choose is which of them this run tests."""

import pytest

from tests.adapters import chosen
from tests.quickstart.reader import Reader

collect_ignore = [] if chosen() else ["test_quickstarts.py", "test_pages.py"]
if "flask" not in chosen():
    collect_ignore.append("test_flask_app.py")


@pytest.fixture
def reader(tmp_path):
    """Someone in an empty folder and an empty environment."""
    reader = Reader(tmp_path)
    yield reader
    reader.leave()
