"""The quickstarts make environments of their own; what is left to choose is which of them this run tests."""

from tests.adapters import chosen

collect_ignore = [] if chosen() else ["test_quickstarts.py"]
