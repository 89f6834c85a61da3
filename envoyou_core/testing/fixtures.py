"""The fixture `envoyou_platform`, for a `conftest.py` that names this module in `pytest_plugins`.

The plugin `pytest_envoyou` has it as well, and needs no import.
"""

from __future__ import annotations

from pytest_envoyou import envoyou_platform

__all__ = ["envoyou_platform"]
