"""`flask envoyou`: the commands of `envoyou`, for the webhooks of the current app."""

from __future__ import annotations

from flask import Flask

__all__ = ["add_commands"]


def add_commands(app: Flask) -> None:
    """Add `flask envoyou` to the app's commands."""
