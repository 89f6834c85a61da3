"""The demonstration runs the FastAPI example: without FastAPI there is none."""

from tests.adapters import chosen

collect_ignore_glob = [] if "fastapi" in chosen() else ["test_*.py"]
