"""The command that sends signed deliveries, as the platform sends them, and shows the answers."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urljoin

import typer

from envoyou_core.cli.changes import change, changes
from envoyou_core.cli.output import fail, print_line, print_result, print_text, progress, report_usage_errors, reporting
from envoyou_core.cli.parameters import AS_JSON, STANDARD_INPUT, json_object
from envoyou_core.cli.posting import Tally, check_url, curl_command, paced, post
from envoyou_core.cli.signing_secrets import SECRET_FILE, find_secret
from envoyou_core.cli.target import target_of
from envoyou_core.errors import ConfigurationError
from envoyou_core.reception.signature import Secret, SignedContent
from envoyou_core.testing import SAMPLE_WEBHOOK_ID, Delivery, sample_event, sign_delivery

__all__ = ["trigger"]

DEFAULT_TYPE = "user.created"
MAX_COUNT = 1_000_000


@reporting
def trigger(
    context: typer.Context,
    type: Annotated[
        str | None,
        typer.Argument(metavar="TYPE", help=f"The event's type; by default {DEFAULT_TYPE}.", show_default=False),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="The URL that receives webhooks; by default that of the Django or Flask application."
        ),
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="The base URL of the server, if the path is the application's.")
    ] = None,
    data: Annotated[
        dict[str, Any] | None,
        typer.Option(
            metavar="JSON",
            parser=json_object,
            help="The event's data.object, by default a sample for its type; - reads it from standard input.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="Change a value of the event, such as data.object.id=user_1; may be repeated.",
        ),
    ] = None,
    body: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Send these bytes, signed, instead of an event; - reads standard input."),
    ] = None,
    webhook_id: Annotated[
        str | None, typer.Option(metavar="ID", help="The endpoint's id, if secrets are configured by endpoint.")
    ] = None,
    secret_file: SECRET_FILE = None,
    count: Annotated[int, typer.Option(min=1, max=MAX_COUNT, help="The number of events.")] = 1,
    rate: Annotated[
        float | None, typer.Option(min=0.001, metavar="NUMBER", help="Deliveries in a second, at most.")
    ] = None,
    duplicate: Annotated[bool, typer.Option("--duplicate", help="Send each delivery twice.")] = False,
    bad_signature: Annotated[
        bool, typer.Option("--bad-signature", help="Sign with another secret, and expect the answer 401.")
    ] = False,
    skew: Annotated[int, typer.Option(metavar="SECONDS", help="Add this to the timestamp, such as -600 or 600.")] = 0,
    canonical: Annotated[
        bool, typer.Option("--canonical", help="Sign the canonical form, as the guide's Python example does.")
    ] = False,
    print_curl: Annotated[
        bool, typer.Option("--print-curl", help="Print the signed curl commands and send nothing.")
    ] = False,
    as_json: AS_JSON = False,
) -> None:
    """Send a sample event, signed as EnvoyOU signs it, and show the answer. The exit code is 1 unless it is a 200.

    It is signed with the secret of --secret-file, else with the application's, else with ENVOYOU_WEBHOOK_SECRET.
    """
    if body is not None and not (type is None and data is None and not set_):
        raise typer.BadParameter("--body replaces the event, so TYPE, --data and --set cannot be used with it")
    if [body, secret_file].count(STANDARD_INPUT) > 1:
        raise typer.BadParameter("only one file can be read from standard input")
    target = target_of(context)
    if to is None:
        to = urljoin(server or target.server, target.find_path())
    elif server is not None:
        raise typer.BadParameter("name either --to or --server")
    with report_usage_errors():
        check_url(to)
    key = find_secret(target, webhook_id or SAMPLE_WEBHOOK_ID, secret_file)
    source = _Deliveries(
        secret=secrets.token_hex(16) if bad_signature else key,
        signed_content="canonical" if canonical else "raw",
        skew=skew,
        webhook_id=webhook_id,
        body=None if body is None else _read(body),
        type=type or DEFAULT_TYPE,
        object=data,
        changes=changes(set_ or []),
    )
    copies = 2 if duplicate else 1
    deliveries = source.make(count, copies)
    if print_curl:
        for delivery in deliveries:
            print_text(curl_command(to, delivery))
        return
    _send(to, deliveries, count * copies, rate, expected=401 if bad_signature else 200, as_json=as_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Deliveries:
    """Makes the deliveries of one command. Each is signed when it is sent, because its timestamp expires."""

    secret: Secret
    signed_content: SignedContent
    skew: int
    webhook_id: str | None
    body: bytes | None
    type: str
    object: dict[str, Any] | None
    changes: Sequence[tuple[tuple[str, ...], Any]]

    def make(self, count: int, copies: int) -> Iterator[Delivery]:
        for _ in range(count):
            body = self._event() if self.body is None else self.body
            try:
                delivery = sign_delivery(
                    body,
                    secret=self.secret,
                    timestamp=int(time.time()) + self.skew,
                    signed_content=self.signed_content,
                    webhook_id=self.webhook_id,
                )
            except ValueError as error:
                raise typer.BadParameter(f"the body has no canonical form: {error}") from None
            for _ in range(copies):
                yield delivery

    def _event(self) -> bytes:
        event = sample_event(self.type, object=self.object, webhook_id=self.webhook_id or SAMPLE_WEBHOOK_ID)
        if not self.changes:
            return event.body
        document = json.loads(event.body)
        for path, value in self.changes:
            change(document, path, value)
        return json.dumps(document).encode()


def _send(
    url: str, deliveries: Iterator[Delivery], total: int, rate: float | None, *, expected: int, as_json: bool
) -> None:
    tally = Tally()
    ids: list[str] = []
    began = time.monotonic()
    with progress("Sending", lambda: total) if total > 1 else nullcontext() as advance:
        for number, delivery in enumerate(paced(deliveries, rate), start=1):
            answer = post(url, delivery)
            if answer.status is None and not tally.seconds:
                fail(f"no response from {url}: {answer.text}. Is the server running?")
            tally.add(answer)
            ids.append(_id_of(delivery))
            if advance is not None:
                advance(number)
    seconds = time.monotonic() - began
    if as_json:
        print_result(_document(url, tally, list(dict.fromkeys(ids)), seconds))
    elif total == 1:
        print_line(f"{ids[0]}: {answer.status} {answer.text}")
    else:
        for line in _summary(tally, total, seconds):
            print_line(line)
    if not tally.are_all(expected):
        raise typer.Exit(1)


def _document(url: str, tally: Tally, ids: list[str], seconds: float) -> dict[str, Any]:
    return {
        "url": url,
        "ids": ids,
        "answers": [
            {"status": status, "answer": text, "count": number} for (status, text), number in tally.kinds.most_common()
        ],
        "milliseconds": tally.milliseconds(),
        "seconds": round(seconds, 3),
    }


def _summary(tally: Tally, total: int, seconds: float) -> list[str]:
    lines = [f"{total:,} deliveries in {seconds:.1f} s, {total / seconds:,.0f} a second"]
    if times := tally.milliseconds():
        lines.append(f"answered within {', '.join(f'{value} ms ({name})' for name, value in times.items())}")
    lines += [
        f"{number:,} x {'no response:' if status is None else status} {text}"
        for (status, text), number in tally.kinds.most_common()
    ]
    return lines


def _id_of(delivery: Delivery) -> str:
    try:
        document = json.loads(delivery.body)
    except (ValueError, RecursionError):
        document = None
    event_id = document.get("id") if isinstance(document, dict) else None
    return event_id if isinstance(event_id, str) and event_id.strip() else "(no event id)"


def _read(file: str) -> bytes:
    if file == STANDARD_INPUT:
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from None
