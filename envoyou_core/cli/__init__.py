"""The command `envoyou`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; it needs the extra `cli`."""
    try:
        from envoyou_core.cli.commands import app
    except ImportError as error:
        sys.exit(f"the command line needs {error.name}: pip install 'envoyou-webhooks[cli,sql]'")
    app()
