"""The commands `envoyou alerts`: what fires."""

from __future__ import annotations

import typer

from envoyou_core.cli.output import print_result, reporting
from envoyou_core.cli.parameters import AS_JSON
from envoyou_core.cli.tables import alerts_table
from envoyou_core.cli.target import webhooks_of

__all__ = ["alerts"]

alerts = typer.Typer(no_args_is_help=True, help="Show the alerts that fire.")


@alerts.command("list")
@reporting
def list_alerts(context: typer.Context, as_json: AS_JSON = False) -> None:
    """List the alerts that fire, and those that have resolved within 24 hours, as of the last evaluation."""
    webhooks = webhooks_of(context)
    webhooks.inbox.open()
    found = webhooks.current_alerts()
    print_result([alert.to_json() for alert in found] if as_json else alerts_table(found))
