"""The command that proves an application: a storm of deliveries, and the comparison of both records afterwards."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn
from urllib.parse import urljoin, urlsplit

import typer

from envoyou_core.cli.output import fail, print_colored, print_line, print_note, print_result, progress, reporting
from envoyou_core.cli.parameters import AS_JSON
from envoyou_core.cli.signing_secrets import find_secret
from envoyou_core.cli.target import inbox_of, target_of
from envoyou_core.cli.webhooks import HEADERS_FILE, SECRET_FILE, read_headers, secret_text
from envoyou_core.errors import ConfigurationError
from envoyou_core.event import EVENT_TYPES
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.redaction import printable
from envoyou_core.testing import SAMPLE_WEBHOOK_ID

if TYPE_CHECKING:
    from envoyou_core.storm.plan import Plan
    from envoyou_core.storm.report import Report

__all__ = ["finish", "print_report", "prove"]

PORTS: Final = {"http": 80, "https": 443}
MAX_EVENTS: Final = 100_000
EFFECTS_TIMEOUT: Final = 120.0
"""Seconds."""

NOT_A_WEBHOOK: Final = frozenset({301, 302, 303, 307, 308, 404, 405})


@reporting
def prove(
    context: typer.Context,
    to: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The URL that receives webhooks; by default that of the application."),
    ] = None,
    events: Annotated[int, typer.Option(min=1, max=MAX_EVENTS, help="The number of genuine events.")] = 5_000,
    type: Annotated[
        list[str] | None,
        typer.Option(metavar="TYPE", help="The events' type, by default all that have a handler; may be repeated."),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(metavar="COMMAND", help="Starts the application's server, which is then killed and restarted."),
    ] = None,
    kills: Annotated[int, typer.Option(min=0, max=100, help="How often the server is ended and restarted.")] = 4,
    effects: Annotated[
        str | None,
        typer.Option(metavar="COMMAND", help="Prints a line with the event's id for each effect of a handler."),
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a report in Markdown.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Chooses what goes wrong.")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="The deliveries at a time.")] = 16,
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds after which it ends with what it has.")] = 600.0,
    patience: Annotated[float, typer.Option(min=1.0, help="Seconds that handlers may make no progress.")] = 60.0,
    webhook_id: Annotated[
        str | None, typer.Option(help="The endpoint's id, if secrets are configured by endpoint.")
    ] = None,
    headers_file: HEADERS_FILE = None,
    secret_file: SECRET_FILE = None,
    allow_any_address: Annotated[
        bool, typer.Option("--allow-any-address", help="Also send to other than loopback addresses.")
    ] = False,
    as_json: AS_JSON = False,
) -> None:
    """Prove your application: send it a storm, and compare what was answered with what is in its inbox.

    The storm has duplicates, forged and stale requests, dropped answers and changed order; with --server, the server is
    killed and restarted. The exit code is 0 only if nothing is lost, doubled or wrongly accepted. The handlers run:
    their work for test users stays in your database. Use one for development.
    """
    _check_extra()
    from envoyou_core.storm.plan import handled_types, make_plan, new_run
    from envoyou_core.storm.report import Report
    from envoyou_core.storm.run import Storm, run_storm
    from envoyou_core.storm.server import ServerProcess

    target = target_of(context)
    webhooks = target.find()
    if isinstance(webhooks.inbox, MemoryInbox):
        raise ConfigurationError("the inbox is in the memory of the application, and cannot be read from here")
    url = urljoin(target.server, target.find_path()) if to is None else to
    address = _address_of(url)
    patterns = [pattern for handler in webhooks.registered for pattern in handler.patterns]
    types = _check_types(type) if type else handled_types(patterns)
    plan = make_plan(new_run(), types, events, created=int(time.time()))
    storm = Storm(
        plan=plan,
        url=url,
        secret=secret_text(find_secret(target, webhook_id or SAMPLE_WEBHOOK_ID, secret_file)),
        webhook_id=webhook_id,
        headers={} if headers_file is None else read_headers(headers_file),
        seed=seed,
        concurrency=concurrency,
        kills=kills,
        timeout=timeout,
        patience=patience,
        loopback_only=not allow_any_address,
        policy=webhooks.verification_policy,
    )
    restarts: list[str] = []

    def note(line: str) -> None:
        restarts.append(line)
        # Not by a console, which would write into the progress bar.
        print(printable(line), file=sys.stderr)

    began = time.monotonic()
    with _ending_by_signal(), tempfile.TemporaryDirectory(prefix="envoyou-prove-") as folder:
        log = Path(folder, "server.log")
        process = None if server is None else ServerProcess(server, address, log)
        with process or nullcontext():
            _check_endpoint(url, loopback_only=not allow_any_address)
            print_note(f"Run {plan.run}: {events:,} events to {url}. Their ids begin with evt_prove_{plan.run}_.")
            with progress("Delivered and processed", lambda: 2 * events) as on_progress:
                outcome = run_storm(
                    storm,
                    inbox=lambda: inbox_of(context),
                    spool=webhooks.spool,
                    server=process,
                    effects=None if effects is None else lambda: _effects(effects, plan),
                    on_progress=on_progress or (lambda _: None),
                    on_note=note,
                )
    result = Report(
        run=plan.run,
        url=url,
        types=types,
        seed=seed,
        restarts=restarts,
        seconds=time.monotonic() - began,
        outcome=outcome,
    )
    finish(result, report, as_json=as_json)


def finish(result: Report, file: Path | None, *, as_json: bool) -> None:
    """Write the report to `file`, print the result, and exit with 1 if something is wrong."""
    if file is not None:
        file.write_text(result.as_markdown(), encoding="utf-8")
    if as_json:
        print_result(result.as_json())
    else:
        print_report(result)
    if not result.outcome.passed:
        raise typer.Exit(1)


def print_report(report: Report) -> None:
    """Print the result, and the first findings of each kind."""
    from envoyou_core.storm.report import MEANINGS

    print_colored(report.summary, "green" if report.outcome.passed else "red")
    for line in report.details:
        print_line(line)
    for kind in MEANINGS:
        title, findings = report.findings_of(kind)
        if findings:
            print_line("")
            print_colored(title, "bold")
            for line in findings:
                print_line(f"  {line}")


def _check_extra() -> None:
    try:
        import envoyou_core.simulator  # noqa: F401 - the command needs its requirements
    except ImportError as error:
        raise ConfigurationError(f"prove needs {error.name}: pip install 'envoyou-webhooks[simulator]'") from error


def _check_types(types: list[str]) -> tuple[str, ...]:
    for each in types:
        if each not in EVENT_TYPES:
            raise typer.BadParameter(f"expected one of {', '.join(EVENT_TYPES)}; got {each!r}", param_hint="--type")
    return tuple(dict.fromkeys(types))


def _address_of(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in PORTS or not parts.hostname:
        raise typer.BadParameter(f"expected a URL such as http://127.0.0.1:8000/webhooks/envoyou, got {url!r}")
    return parts.hostname, port or PORTS[parts.scheme]


def _check_endpoint(url: str, *, loopback_only: bool) -> None:
    from envoyou_core.simulator.transport import DeliveryError
    from envoyou_core.storm.run import probe

    try:
        status = probe(url, loopback_only=loopback_only)
    except DeliveryError as error:
        fail(f"no response from {url}: {error}. Is the server running? --server COMMAND starts it.")
    if status in NOT_A_WEBHOOK:
        fail(f"{url} has answered {status} to a POST: is this the URL that receives webhooks?")


def _effects(command: str, plan: Plan) -> list[str]:
    """Run the command, and return the id of the event of each line that has one of this run."""
    try:
        ran = subprocess.run(  # noqa: S603 - the user's own command
            shlex.split(command), capture_output=True, text=True, timeout=EFFECTS_TIMEOUT, check=False
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"cannot run the command of --effects: {error}") from None
    if ran.returncode:
        raise ConfigurationError(f"the command of --effects has ended with {ran.returncode}: {ran.stderr[-500:]}")
    return [ids[0] for line in ran.stdout.splitlines() if (ids := plan.ids_in(line))]


@contextmanager
def _ending_by_signal() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the command, so that it ends the server that it has started."""

    def end(number: int, _: object) -> NoReturn:
        sys.exit(128 + number)

    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
