"""The command that runs a local EnvoyOU platform."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from envoyou_core.cli.output import print_json_line, print_line, reporting
from envoyou_core.errors import ConfigurationError

if TYPE_CHECKING:
    from envoyou_core.simulator import Attempt, Platform

__all__ = ["PORT", "ending", "outcome_of", "simulate"]

PORT: Final = 8787
INTERVAL: Final = 1.0
"""Seconds between two looks at whether the platform is running."""

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@reporting
def simulate(
    context: typer.Context,
    api_key: Annotated[
        str, typer.Option(metavar="KEY", help="The key that clients of the API must send; never a real one.")
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="On the loopback address; 0 takes a free one.")] = PORT,
    database: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keeps webhooks, events and attempts; in memory by default.")
    ] = None,
    trouble: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="What it does wrong, such as duplicates=0.2; may be repeated."),
    ] = None,
    rate_limit: Annotated[int, typer.Option(min=1, help="The requests to the API in a minute.")] = 600,
    error_form: Annotated[Literal["flat", "nested"], typer.Option(help="The form of the API's errors.")] = "flat",
    allow_any_address: Annotated[
        bool, typer.Option("--allow-any-address", help="Also deliver to other than loopback addresses.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Run a local EnvoyOU platform until SIGTERM or SIGINT: the management API, and a sender of signed events.

    Prints each attempt to deliver an event, and its answer.
    """
    try:
        from envoyou_core.simulator import Platform, Trouble
    except ImportError as error:
        raise ConfigurationError(f"simulate needs {error.name}: pip install 'envoyou-webhooks[simulator]'") from error
    try:
        troubles = Trouble.from_texts(trouble or [])
    except ConfigurationError as error:
        raise typer.BadParameter(str(error), param_hint="--trouble") from None
    attempts: SimpleQueue[Attempt | None] = SimpleQueue()
    platform = Platform(
        api_key=api_key,
        port=port,
        database=database,
        trouble=troubles,
        rate_limit=rate_limit,
        error_form=error_form,
        loopback_only=not allow_any_address,
        on_attempt=attempts.put,
    )
    with ending(attempts), platform:
        _print_ready(platform, as_json=as_json)
        for attempt in _until_the_end(attempts, platform):
            if as_json:
                print_json_line({"event": "attempt", **asdict(attempt)})
            else:
                print_line(_text_of(attempt))


def _until_the_end(attempts: SimpleQueue[Attempt | None], platform: Platform) -> Iterator[Attempt]:
    """Yield the attempts until `None` comes, or until the platform has failed."""
    while platform.is_running:
        with suppress(Empty):
            if (attempt := attempts.get(timeout=INTERVAL)) is None:
                return
            yield attempt


@contextmanager
def ending(attempts: SimpleQueue[Attempt | None]) -> Iterator[None]:
    """Put `None` into the queue at a signal to stop. A second signal ends the process at once."""

    def stop(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        attempts.put(None)

    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_ready(platform: Platform, *, as_json: bool) -> None:
    if as_json:
        print_json_line({"event": "ready", "url": platform.base_url, "control_url": platform.control_url})
    else:
        print_line(f"The API is at {platform.base_url}, and its control at {platform.control_url}. Ctrl+C ends it.")


def _text_of(attempt: Attempt) -> str:
    sent_at = datetime.fromtimestamp(attempt.sent_at, UTC).isoformat(timespec="milliseconds")
    return (
        f"{sent_at} {attempt.event_type} {attempt.event_id} to {attempt.webhook_id}, "
        f"attempt {attempt.number}: {outcome_of(attempt)}"
    )


def outcome_of(attempt: Attempt) -> str:
    """Return the status of the answer to an attempt, and why it was ignored or missing."""
    return " ".join(filter(None, ["" if attempt.status is None else str(attempt.status), attempt.error]))
