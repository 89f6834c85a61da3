"""The command that answers a health probe, for orchestrators that run commands."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from envoyou_core.cli.output import print_line, print_result, reporting
from envoyou_core.cli.parameters import AS_JSON, duration
from envoyou_core.cli.target import webhooks_of
from envoyou_core.health.reports import MAX_OVERDUE, Probe

__all__ = ["health"]


@reporting
def health(
    context: typer.Context,
    probe: Annotated[Probe, typer.Argument(metavar="PROBE", help="live, ready or worker.", show_default=False)],
    max_overdue: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration,
            metavar="AGE",
            help="For worker: how long the oldest waiting event may be overdue; by default 5m.",
        ),
    ] = None,
    as_json: AS_JSON = False,
) -> None:
    """Answer a health probe; the exit code is 0 or 1.

    live: the application can be loaded. ready: the inbox or the spool can be written. worker: a worker is alive, and
    no event waits for long.
    """
    overdue = MAX_OVERDUE if max_overdue is None else max_overdue.total_seconds()
    found = webhooks_of(context).probes.check(probe, max_overdue=overdue)
    document = found.document()
    if as_json:
        print_result(document)
    else:
        print_line(
            ", ".join(
                [
                    str(document.pop("status")),
                    *(f"{name.replace('_', ' ')} {value}" for name, value in document.items()),
                ]
            )
        )
    if not found.is_ok:
        raise typer.Exit(1)
