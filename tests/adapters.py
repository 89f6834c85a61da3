"""Which adapters this run tests.

``ENVOYOU_TEST_ADAPTERS`` names them, separated by commas; one that is named and cannot be imported
is then a failure, not a skip. Where the variable is not set, every adapter whose framework is
installed is tested.
"""

import os
from importlib.util import find_spec

ADAPTERS = ("django", "flask", "fastapi", "starlette")


def chosen() -> tuple[str, ...]:
    """The adapters to test, in the order of `ADAPTERS`."""
    named = os.environ.get("ENVOYOU_TEST_ADAPTERS")
    if named is None:
        return tuple(name for name in ADAPTERS if find_spec(name))
    names = {name.strip() for name in named.split(",") if name.strip()}
    if unknown := names.difference(ADAPTERS):
        raise ValueError(f"ENVOYOU_TEST_ADAPTERS names unknown adapters: {sorted(unknown)}")
    return tuple(name for name in ADAPTERS if name in names)
