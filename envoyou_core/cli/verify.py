"""The command that finds out why a captured request is refused."""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from envoyou_core.cli.output import print_result, reporting
from envoyou_core.cli.parameters import AS_JSON, STANDARD_INPUT
from envoyou_core.cli.signing_secrets import SECRET_FILE, find_secrets
from envoyou_core.cli.target import Target, target_of
from envoyou_core.errors import ConfigurationError
from envoyou_core.http import WEBHOOK_ID_HEADER
from envoyou_core.reception.captures import Capture
from envoyou_core.reception.diagnosis import Diagnosis, diagnose
from envoyou_core.reception.verification import VerificationPolicy
from envoyou_core.redaction import printable
from envoyou_core.settings import SECRET_NAMES, SETTING_NAMES, read_environment

__all__ = ["verify"]

MAX_SIZE = 16 * 1_048_576
"""Bytes of a capture that are read."""

POLICY_SETTINGS = frozenset({"TOLERANCE", "SIGNED_CONTENT", "REQUIRED_HEADERS", "MAX_CANONICAL_SIZE"})


def _time(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"expected 2026-01-31T12:00:00Z or epoch seconds, got {text!r}") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


@reporting
def verify(
    context: typer.Context,
    request: Annotated[
        str,
        typer.Option(
            "--request",
            metavar="FILE",
            help="The captured request: request line, headers, an empty line, and the body; - reads standard input. "
            "Of a directory, the newest capture is read.",
            show_default=False,
        ),
    ],
    at: Annotated[
        float | None,
        typer.Option(
            metavar="TIME",
            parser=_time,
            help="When it was received, such as 2026-01-31T12:00:00Z (UTC) or epoch seconds. By default as the capture "
            "says, else now.",
        ),
    ] = None,
    secret_file: SECRET_FILE = None,
    as_json: AS_JSON = False,
) -> None:
    """Verify a captured request without a server, and say why it is refused. The exit code is 1 if it is.

    The secrets are those of --secret-file, else the application's, else those of ENVOYOU_WEBHOOK_SECRET.
    """
    if [request, secret_file].count(STANDARD_INPUT) > 1:
        raise typer.BadParameter("only one file can be read from standard input")
    capture = Capture.from_bytes(_read(request))
    target = target_of(context)
    webhook_id = next((value.decode("utf-8", "replace") for value in capture.values(WEBHOOK_ID_HEADER)), "")
    received_at = capture.received_at if at is None else at
    found = diagnose(
        capture,
        secrets=find_secrets(target, webhook_id, secret_file),
        policy=_policy(target),
        now=time.time() if received_at is None else received_at,
    )
    print_result(_document(found) if as_json else _table(found))
    if found.error is not None:
        raise typer.Exit(1)


def _policy(target: Target) -> VerificationPolicy:
    if target.is_named:
        return target.find().verification_policy
    given = read_environment(os.environ, others=SETTING_NAMES - POLICY_SETTINGS | SECRET_NAMES)
    return VerificationPolicy(**given)


def _table(found: Diagnosis) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    if found.error is None:
        table.add_row(Text("verified", "green"), "the request is accepted")
    else:
        reason = f"{found.error.status} {found.error.reason}: {found.error.detail}"
        table.add_row(Text("refused", "red"), Text(printable(reason)))
    for cause in found.causes:
        table.add_row("cause", Text(printable(cause.text)))
        table.add_row("to do", Text(cause.remedy))
    for note in found.notes:
        table.add_row("note", Text(note))
    return table


def _document(found: Diagnosis) -> dict[str, Any]:
    error = found.error
    return {
        "accepted": error is None,
        "status": 200 if error is None else error.status,
        "reason": None if error is None else error.reason,
        "causes": [{"cause": each.name, "text": each.text, "remedy": each.remedy} for each in found.causes],
        "notes": found.notes,
    }


def _read(file: str) -> bytes:
    try:
        if file == STANDARD_INPUT:
            content = sys.stdin.buffer.read(MAX_SIZE + 1)
        else:
            with _newest(Path(file)).open("rb") as source:
                content = source.read(MAX_SIZE + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from None
    if len(content) > MAX_SIZE:
        raise ConfigurationError(f"the capture is larger than {MAX_SIZE} bytes")
    return content


def _newest(path: Path) -> Path:
    if not path.is_dir():
        return path
    # Their names begin with the time.
    newest = max(path.glob("*.http"), default=None)
    if newest is None:
        raise ConfigurationError(f"the directory {path} has no captures")
    return newest
