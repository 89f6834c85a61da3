"""The commands `envoyou rejected`: genuine deliveries that were answered 400 and are kept."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from envoyou_core.cli.documents import rejected_as_json
from envoyou_core.cli.output import fail, print_bytes, print_line, print_result, print_text, reporting
from envoyou_core.cli.parameters import AS_JSON, LIMIT
from envoyou_core.cli.tables import rejected_details, rejected_table
from envoyou_core.cli.target import inbox_of, webhooks_of
from envoyou_core.errors import WebhookError, describe
from envoyou_core.inbox.rejected import MAX_REJECTED
from envoyou_core.redaction import printable
from envoyou_core.webhooks import Webhooks

__all__ = ["rejected"]

rejected = typer.Typer(
    no_args_is_help=True, help="List, show and retry genuine deliveries that were answered 400 and are kept."
)

KEY = Annotated[int, typer.Argument(help="The key of one delivery, as `list` shows it.", show_default=False)]
KEYS = Annotated[
    list[int] | None, typer.Argument(help="The keys of deliveries, as `list` shows them.", show_default=False)
]


@rejected.command("list")
@reporting
def list_rejected(context: typer.Context, limit: LIMIT = 20, as_json: AS_JSON = False) -> None:
    """List rejected deliveries. Payloads are not shown."""
    deliveries = inbox_of(context).list_rejected(limit=limit)
    print_result([rejected_as_json(delivery) for delivery in deliveries] if as_json else rejected_table(deliveries))


@rejected.command("show")
@reporting
def show_rejected(
    context: typer.Context,
    key: KEY,
    body: Annotated[bool, typer.Option("--body", help="Print only the body, which contains personal data.")] = False,
    as_json: AS_JSON = False,
) -> None:
    """Show one rejected delivery and why it was rejected; its body only with --body."""
    delivery = inbox_of(context).get_rejected(key)
    if delivery is None:
        fail(f"rejected delivery not found: {key}")
    if not body:
        print_result(rejected_as_json(delivery) if as_json else rejected_details(delivery))
    elif sys.stdout.isatty():
        # The body may control the terminal.
        print_text(printable(delivery.body.decode("utf-8", "replace"), keep="\n\t"))
    else:
        print_bytes(delivery.body)


@rejected.command("retry")
@reporting
def retry_rejected(
    context: typer.Context,
    keys: KEYS = None,
    all_kept: Annotated[bool, typer.Option("--all", help="All that are kept, the oldest first.")] = False,
    signed_headers: Annotated[
        bool,
        typer.Option(
            "--signed-headers",
            help="Use the event type and the webhook id of the signed body instead of those of the headers, which a "
            "proxy may have changed or removed.",
        ),
    ] = False,
) -> None:
    """Verify rejected deliveries anew, as of the time at which they came, and accept those that pass.

    An accepted one is handled like any other event. The others stay, and the command ends with 1.
    """
    if bool(keys) is all_kept:
        raise typer.BadParameter("name the keys of deliveries, or use --all")
    webhooks = webhooks_of(context)
    webhooks.inbox.open()
    if all_kept:
        keys = [delivery.key for delivery in reversed(webhooks.inbox.list_rejected(limit=MAX_REJECTED))]
    failed = [key for key in keys or [] if not _retry(webhooks, key, signed_headers)]
    if failed:
        fail(f"still rejected, or not found: {', '.join(map(str, failed))}")


def _retry(webhooks: Webhooks, key: int, signed_headers: bool) -> bool:
    try:
        event = webhooks.retry_rejected(key, use_signed_headers=signed_headers)
    except WebhookError as error:
        print_line(f"{key}: {describe(error)}")
        return False
    print_line(f"{key}: not found" if event is None else f"{key}: accepted {event.id} ({event.type})")
    return event is not None
