"""The command for development: a local platform beside the application, and what happens between them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urljoin

import typer

from envoyou_core.cli.handled import Handled, HandlerResults
from envoyou_core.cli.output import print_colored, print_json_line, print_note, reporting
from envoyou_core.cli.signing_secrets import find_secret
from envoyou_core.cli.simulating import PORT, ending, outcome_of
from envoyou_core.cli.target import inbox_of, target_of
from envoyou_core.cli.webhooks import HEADERS_FILE, SECRET_FILE, read_headers, secret_text
from envoyou_core.errors import ConfigurationError
from envoyou_core.inbox import Status
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.testing import SAMPLE_WEBHOOK_ID

if TYPE_CHECKING:
    from envoyou_core.simulator import Attempt, Platform

__all__ = ["dev"]

COLORS: Final[dict[str, str]] = {
    Status.PROCESSED: "green",
    Status.IGNORED: "yellow",
    Status.FAILED: "yellow",
    Status.DEAD: "red",
}


@reporting
def dev(
    context: typer.Context,
    to: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The URL that receives webhooks; by default that of the application."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the platform; 0 takes a free one.")] = PORT,
    api_key: Annotated[
        str, typer.Option(metavar="KEY", help="The key that clients of the platform must send; never a real one.")
    ] = "dev",
    trouble: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="What goes wrong, such as duplicates=0.2; may be repeated."),
    ] = None,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks at the inbox.")] = 0.5,
    webhook_id: Annotated[
        str | None, typer.Option(help="The endpoint's id, if secrets are configured by endpoint.")
    ] = None,
    headers_file: HEADERS_FILE = None,
    secret_file: SECRET_FILE = None,
    allow_any_address: Annotated[
        bool, typer.Option("--allow-any-address", help="Also deliver to other than loopback addresses.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Develop with a local EnvoyOU platform beside your application, until Ctrl-C.

    It registers the URL of your application, and shows each delivery with its answer, and each attempt of your handlers
    with its result. Send and resend events, and requeue them, from a second terminal. Without an application, only the
    deliveries are shown.
    """
    try:
        from envoyou_core.simulator import Platform, Trouble
    except ImportError as error:
        raise ConfigurationError(f"dev needs {error.name}: pip install 'envoyou-webhooks[simulator]'") from error
    try:
        troubles = Trouble.from_texts(trouble or [])
    except ConfigurationError as error:
        raise typer.BadParameter(str(error), param_hint="--trouble") from None
    target = target_of(context)
    url = urljoin(target.server, target.find_path()) if to is None else to
    secret = secret_text(find_secret(target, webhook_id or SAMPLE_WEBHOOK_ID, secret_file))
    headers = {} if headers_file is None else read_headers(headers_file)
    results = _results(context)
    attempts: SimpleQueue[Attempt | None] = SimpleQueue()
    platform = Platform(
        api_key=api_key,
        port=port,
        trouble=troubles,
        loopback_only=not allow_any_address,
        on_attempt=attempts.put,
    )
    with ending(attempts), platform:
        platform.register(url, secret=secret, headers=headers, webhook_id=webhook_id)
        _print_ready(platform, url, as_json=as_json)
        for happened in _happenings(attempts, platform, results, interval):
            if isinstance(happened, Handled):
                _print_handled(happened, as_json=as_json)
            else:
                _print_attempt(happened, as_json=as_json)


def _results(context: typer.Context) -> HandlerResults | None:
    target = target_of(context)
    if not target.is_named:
        return None
    if isinstance(target.find().inbox, MemoryInbox):
        print_note("The inbox is in the memory of the application: the results of handlers cannot be shown.")
        return None
    results = HandlerResults(lambda: inbox_of(context))
    if results.missing:
        print_note(f"The results of handlers are shown as soon as there is an inbox: {results.missing}")
    return results


def _happenings(
    attempts: SimpleQueue[Attempt | None], platform: Platform, results: HandlerResults | None, interval: float
) -> Iterator[Attempt | Handled]:
    """Yield deliveries and the results of handlers, until `None` comes, or until the platform has failed."""
    looked = time.monotonic()
    while platform.is_running:
        with suppress(Empty):
            if (attempt := attempts.get(timeout=interval)) is None:
                return
            yield attempt
        if results is not None and time.monotonic() - looked >= interval:
            yield from results.look()
            looked = time.monotonic()


def _print_ready(platform: Platform, url: str, *, as_json: bool) -> None:
    if as_json:
        ready = {"event": "ready", "to": url, "url": platform.base_url, "control_url": platform.control_url}
        print_json_line(ready)
        return
    events = f"{platform.control_url}/events"
    key = f"-H 'X-API-Key: {platform.api_key}'"
    print_colored(f"Delivers to {url}. The platform's API is at {platform.base_url}. Ctrl+C ends it.")
    print_colored("In a second terminal, send an event, deliver it again, and let its handlers run again:")
    print_colored(f'  curl -sS {events} {key} -d \'{{"type": "user.created"}}\'', "cyan")
    print_colored(f"  curl -sS -X POST {events}/EVENT_ID/resend {key}", "cyan")
    print_colored("  envoyou events requeue EVENT_ID", "cyan")


def _print_attempt(attempt: Attempt, *, as_json: bool) -> None:
    if as_json:
        print_json_line({"event": "attempt", **asdict(attempt)})
        return
    at = datetime.fromtimestamp(attempt.sent_at, UTC)
    outcome = f"{outcome_of(attempt)} in {attempt.seconds * 1000:.0f} ms"
    color = "green" if attempt.delivered else "red"
    print_colored(f"{at:%H:%M:%S} {attempt.event_type} {attempt.event_id}", "bold")
    print_colored(f"         delivery, attempt {attempt.number}: {outcome}", color)
    if attempt.answer:
        print_colored(f"         {' '.join(attempt.answer.split())}")


def _print_handled(handled: Handled, *, as_json: bool) -> None:
    record = handled.record
    if as_json:
        print_json_line(_handled_as_json(handled))
        return
    duration = (
        ""
        if handled.attempt is None or handled.attempt.seconds is None
        else f" in {handled.attempt.seconds * 1000:.0f} ms"
    )
    color = COLORS.get(handled.status, "red")
    print_colored(f"{handled.at:%H:%M:%S} {record.event.type} {record.event.id}", "bold")
    what = f"handlers, attempt {handled.number}" if handled.attempt is not None else "no handler"
    print_colored(f"         {what}: {handled.status}{duration}", color)
    for name, error in handled.errors:
        print_colored(f"         {name}: {error}", "red")
    if handled.status == Status.PROCESSED and record.progress:
        print_colored(f"         {', '.join(f'{name} {status.value}' for name, status in record.progress.items())}")


def _handled_as_json(handled: Handled) -> dict[str, Any]:
    record = handled.record
    return {
        "event": "handled",
        "id": record.event.id,
        "type": record.event.type,
        "tenant": record.tenant,
        "status": handled.status,
        "attempt": handled.number,
        "at": handled.at.isoformat(),
        "seconds": None if handled.attempt is None else handled.attempt.seconds,
        "failures": [{"handler": name, "error": error} for name, error in handled.errors],
        "handlers": {name: status.value for name, status in record.progress.items()},
    }
