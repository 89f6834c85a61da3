"""The command `envoyou`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; requires the extra `cli`."""
    try:
        from envoyou_core.cli.command_line import app, run_commands
    except ImportError as error:
        sys.exit(f"Error: {error.name} is not installed: pip install 'envoyou-webhooks[cli,sql]'")
    run_commands(app, name="envoyou")
