"""The command `envoyou`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; requires the extra `cli`."""
    try:
        from envoyou_core.cli.commands import app
    except ImportError as error:
        sys.exit(f"Error: {error.name} is not installed: pip install 'envoyou-webhooks[cli,sql]'")
    app()
