"""How many inputs the tests with generated input try."""

import os

__all__ = ["examples"]

THOROUGH = bool(os.environ.get("ENVOYOU_TEST_THOROUGH"))


def examples(thorough: int, otherwise: int) -> int:
    """Return `thorough` in the environment `full`, and `otherwise` elsewhere, to save a tenth of the time."""
    return thorough if THOROUGH else otherwise
