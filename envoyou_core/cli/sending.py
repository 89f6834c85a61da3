"""The commands that sign and that make secrets: a sample event is sent as the platform sends it."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.error import HTTPError
from urllib.parse import urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import typer

from envoyou_core.cli.output import fail, print_line, print_result, print_text, reporting
from envoyou_core.cli.parameters import AS_JSON, STANDARD_INPUT, json_object
from envoyou_core.cli.target import Target, target_of
from envoyou_core.errors import ConfigurationError
from envoyou_core.reception.secrets import newest_secret
from envoyou_core.reception.signature import Secret
from envoyou_core.reception.stored_secrets import read_secret_file
from envoyou_core.settings import SECRET_NAMES, SETTING_NAMES, read_environment
from envoyou_core.testing import SAMPLE_WEBHOOK_ID, sample_event, sign_delivery

__all__ = ["find_secret", "secret", "send"]

TIMEOUT = 10.0
"""Seconds."""

RANDOM_BYTES = 32
"""In a new secret: as many as the hash of a signature has."""

secret = typer.Typer(no_args_is_help=True, help="Make signing secrets.")


@secret.command()
def new() -> None:
    """Print a new random signing secret, to be kept where only this application and the platform can read it."""
    print_text(f"whsec_{secrets.token_urlsafe(RANDOM_BYTES)}")


@secret.callback()
def _secrets() -> None:
    """Make signing secrets."""


@reporting
def send(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Argument(help="The URL that receives webhooks; by default that of the Django or Flask application."),
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="The base URL of the server, if the path is the application's.")
    ] = None,
    type: Annotated[str, typer.Option(help="The event's type.")] = "user.created",
    data: Annotated[
        dict[str, Any] | None,
        typer.Option(
            metavar="JSON",
            parser=json_object,
            help="The event's data.object, by default a sample for its type; - reads it from standard input.",
        ),
    ] = None,
    webhook_id: Annotated[
        str, typer.Option(help="The endpoint's id, if secrets are configured by endpoint.")
    ] = SAMPLE_WEBHOOK_ID,
    secret_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A file with the signing secret; - reads it from standard input."),
    ] = None,
    as_json: AS_JSON = False,
) -> None:
    """Send a sample event, signed as EnvoyOU signs it, and show the response. The exit code is 1 unless it is a 200.

    It is signed with the secret of --secret-file, else with the application's, else with ENVOYOU_WEBHOOK_SECRET.
    """
    target = target_of(context)
    if url is None:
        url = urljoin(server or target.server, target.find_path())
    elif server is not None:
        raise typer.BadParameter("name either the URL or --server")
    key = find_secret(target, webhook_id, secret_file)
    try:
        event_id, status, answer = send_sample(url, type=type, secret=key, object=data, webhook_id=webhook_id)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    except OSError as error:
        fail(f"no response from {url}: {getattr(error, 'reason', error)}. Is the server running?")
    if as_json:
        print_result({"id": event_id, "url": url, "status": status, "answer": answer})
    else:
        print_line(f"{event_id}: {status} {answer}")
    if status != 200:
        raise typer.Exit(1)


def find_secret(target: Target, webhook_id: str, file: str | None) -> Secret:
    """Return the newest secret of a file, else of the application, else of the environment.

    Args:
        target: the application.
        webhook_id: the endpoint's id, if secrets are configured by endpoint.
        file: the value of `--secret-file`.

    Raises:
        ConfigurationError: there is no secret.
    """
    if file == STANDARD_INPUT:
        # One secret a line, as in a file.
        return newest_secret([line for line in sys.stdin.read().splitlines() if line], webhook_id)
    if file is not None:
        return newest_secret(read_secret_file(Path(file), "--secret-file"), webhook_id)
    if target.is_named:
        return target.find().newest_secret(webhook_id)
    found = read_environment(os.environ, others=SETTING_NAMES - SECRET_NAMES).get("secret")
    if found is None:
        raise ConfigurationError(
            "the webhook secret is missing: set ENVOYOU_WEBHOOK_SECRET, name the application with --app, or use "
            "--secret-file"
        )
    return newest_secret(found, webhook_id)


def send_sample(
    url: str,
    *,
    type: str,
    secret: Secret,
    object: Mapping[str, Any] | None = None,
    webhook_id: str = SAMPLE_WEBHOOK_ID,
) -> tuple[str, int, str]:
    """Send a sample event once. Redirects are not followed, because the platform does not follow them.

    Args:
        url: the URL that receives webhooks.
        type: the event's type.
        secret: the signing secret.
        object: the event's `data.object`; by default, a sample for its type.
        webhook_id: the endpoint's id.

    Returns:
        The event's id, the status of the response and its body.

    Raises:
        ConfigurationError: the scheme of the URL is not http or https, or the secret is empty.
        InvalidPayloadError: the arguments do not make a valid event.
        OSError: there was no response.
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise ConfigurationError(f"the URL must be one such as http://127.0.0.1:8000/webhooks/envoyou, got {url!r}")
    event = sample_event(type, object=object, webhook_id=webhook_id)
    delivery = sign_delivery(event, secret=secret)
    request = Request(url, delivery.body, delivery.headers)  # noqa: S310 - the scheme is checked above
    try:
        with build_opener(_NoRedirects).open(request, timeout=TIMEOUT) as response:
            return event.id, response.status, response.read().decode(errors="replace")
    except HTTPError as response:
        with response:
            return event.id, response.code, _body_of(response)


class _NoRedirects(HTTPRedirectHandler):
    # The request to the new location would be a GET without the body, and its response would look like success.
    def redirect_request(self, *_redirect: object) -> None:
        """Follow no redirect."""


def _body_of(response: HTTPError) -> str:
    location = response.headers.get("Location")
    if 300 <= response.code < 400 and location is not None:
        return f"redirect to {location}; the platform does not follow redirects"
    return response.read().decode(errors="replace")
