"""Skips the demonstration without FastAPI, because it runs the FastAPI example."""

from tests.adapters import chosen

collect_ignore_glob = [] if "fastapi" in chosen() else ["test_*.py"]
