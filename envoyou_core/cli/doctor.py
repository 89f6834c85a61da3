"""The command that finds what is wrong with an installation."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import typer
from rich.table import Table
from rich.text import Text

from envoyou_core.cli.output import print_line, print_result, reporting
from envoyou_core.cli.parameters import AS_JSON
from envoyou_core.cli.posting import check_url
from envoyou_core.cli.signing_secrets import SECRET_FILE, find_secret
from envoyou_core.cli.target import Target, target_of, webhooks_of
from envoyou_core.cli.webhooks import BASE_URL, HEADERS_FILE, read_headers
from envoyou_core.client.policy import BASE_URL_VARIABLE, DEFAULT_BASE_URL
from envoyou_core.doctor.endpoint.examination import examine_endpoint
from envoyou_core.doctor.examination import examine
from envoyou_core.doctor.findings import Finding, Level, guarded, text_of
from envoyou_core.errors import ConfigurationError
from envoyou_core.inbox.files import refuse_creation
from envoyou_core.redaction import printable, redact
from envoyou_core.references import ApplicationImportError
from envoyou_core.testing import SAMPLE_WEBHOOK_ID
from envoyou_core.webhooks import Webhooks

__all__ = ["doctor"]

STYLES: Final = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "red"}

LEVEL_WIDTH: Final = 8
CHECK_WIDTH: Final = 12


@reporting
def doctor(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Also check the public URL that receives webhooks, over the network."),
    ] = None,
    webhook_id: Annotated[
        str | None, typer.Option(metavar="ID", help="The endpoint's id, if secrets are configured by endpoint.")
    ] = None,
    secret_file: SECRET_FILE = None,
    headers_file: HEADERS_FILE = None,
    base_url: BASE_URL = None,
    as_json: AS_JSON = False,
) -> None:
    """Find what is wrong with an installation, and say what to do. The exit code is 1 if there is a problem.

    It checks the secret, the clock, the inbox and its database, workers and handlers, what waits, the spool and the
    nonce store; with --url also DNS, the certificate, redirects, the answers, and whether a proxy changes deliveries.
    """
    api = base_url or os.environ.get(BASE_URL_VARIABLE) or DEFAULT_BASE_URL
    for given in (api, *([] if url is None else [url])):
        try:
            check_url(given)
        except ConfigurationError as error:
            raise typer.BadParameter(str(error)) from None
        if urlsplit(given).username is not None:
            raise typer.BadParameter("a URL must not contain a user")
    target = target_of(context)
    found: list[Finding] = []
    for raw in _examine(context, target, api, url, webhook_id, secret_file, headers_file):
        # An error of a database or a header of a server may contain any character.
        finding = replace(raw, text=redact(printable(raw.text)), advice=redact(printable(raw.advice)))
        found.append(finding)
        if not as_json:
            print_result(_row(finding))
    counts = Counter(finding.level for finding in found)
    if as_json:
        print_result(_document(found, counts))
    else:
        print_line(_summary(counts))
    if counts[Level.PROBLEM]:
        raise typer.Exit(1)


def _examine(
    context: typer.Context,
    target: Target,
    api: str,
    url: str | None,
    webhook_id: str | None,
    secret_file: str | None,
    headers_file: str | None,
) -> Iterator[Finding]:
    webhooks: Webhooks | None = None
    try:
        webhooks = webhooks_of(context) if target.is_named else _of_environment()
    except ConfigurationError as error:
        yield _unusable(error)
    else:
        if not target.is_named:
            yield Finding.warning(
                "application",
                "no application is named, so the settings of the environment are checked, without handlers",
                "name it: envoyou --app hooks:webhooks doctor, or the variable ENVOYOU_APP",
            )
        yield from examine(webhooks, base_url=api)
        for check in target.checks:
            yield from guarded("project", check)
    if url is None:
        return
    secret = None
    # Otherwise the reason is known already, and the rest can be checked without a secret.
    if webhooks is not None or secret_file is not None:
        secret = find_secret(target, webhook_id or SAMPLE_WEBHOOK_ID, secret_file)
    yield from guarded(
        "url",
        partial(
            examine_endpoint,
            url,
            webhooks=webhooks,
            secret=secret,
            webhook_id=webhook_id or SAMPLE_WEBHOOK_ID,
            headers={} if headers_file is None else read_headers(headers_file),
        ),
    )


def _of_environment() -> Webhooks:
    webhooks = Webhooks.from_env()
    for store in (webhooks.inbox, webhooks.spool):
        refuse_creation(store, at_absolute_path=True)
    return webhooks


def _unusable(error: ConfigurationError) -> Finding:
    reason: Exception = error
    if isinstance(error, ApplicationImportError):
        # Usually the application's module makes the `Webhooks`, and has failed to.
        if isinstance(error.__context__, ConfigurationError):
            reason = error.__context__
        else:
            print(error.shown, file=sys.stderr, end="")
    text = text_of(reason)
    check = "secret" if "secret" in text else "application"
    return Finding.problem(check, f"the settings cannot be used: {text}", "correct the setting; see Settings")


def _row(finding: Finding) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(width=LEVEL_WIDTH, no_wrap=True)
    table.add_column(width=CHECK_WIDTH, no_wrap=True)
    table.add_column(overflow="fold")
    text = Text(finding.text)
    if finding.advice:
        # In a pipe, a finding is one line.
        separator = "\nto do: " if sys.stdout.isatty() else "; to do: "
        text.append(separator, "bold").append(finding.advice)
    table.add_row(Text(finding.level.value, STYLES[finding.level]), finding.check, text)
    return table


def _summary(counts: Counter[Level]) -> str:
    return ", ".join(
        f"{counts[level] or 'no'} {level.value}{'' if counts[level] == 1 else 's'}"
        for level in (Level.PROBLEM, Level.WARNING)
    )


def _document(found: list[Finding], counts: Counter[Level]) -> dict[str, Any]:
    return {
        "ok": not counts[Level.PROBLEM],
        "problems": counts[Level.PROBLEM],
        "warnings": counts[Level.WARNING],
        "findings": [asdict(finding) for finding in found],
    }
