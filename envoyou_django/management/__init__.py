"""Management commands for the inbox."""
