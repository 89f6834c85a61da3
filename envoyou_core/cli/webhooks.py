"""The commands `envoyou webhooks`: what is registered at the platform. See the guide, "Webhook Management"."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from envoyou_core.cli.documents import webhook_as_json
from envoyou_core.cli.events import confirm
from envoyou_core.cli.output import fail, print_line, print_result, report_usage_errors, reporting
from envoyou_core.cli.parameters import AS_JSON, STANDARD_INPUT, json_object
from envoyou_core.cli.signing_secrets import SECRET_FILE, find_secret
from envoyou_core.cli.tables import webhook_details, webhooks_table
from envoyou_core.cli.target import target_of
from envoyou_core.client import ApiError, DeliveryRetryPolicy, EnvoyouClient, Webhook
from envoyou_core.errors import ConfigurationError

__all__ = [
    "BASE_URL",
    "HEADERS_FILE",
    "PAGE_SIZE",
    "SECRET_FILE",
    "api_client",
    "read_headers",
    "secret_text",
    "webhooks",
]

PAGE_SIZE: Final = 100

webhooks = typer.Typer(no_args_is_help=True, help="Register, list, change and delete webhooks at EnvoyOU.")

WEBHOOK_ID = Annotated[str, typer.Argument(metavar="ID", help="The webhook's id.", show_default=False)]
BASE_URL = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The URL of the API; by default ENVOYOU_BASE_URL, else EnvoyOU's."),
]
EVENT = Annotated[
    list[str] | None,
    typer.Option("--event", metavar="TYPE", help="A type of event to deliver, such as user.created; repeatable."),
]
HEADERS_FILE = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="A file with the custom headers of each delivery as a JSON object; - reads it from standard input.",
    ),
]
ACTIVE = Annotated[bool | None, typer.Option("--active/--inactive", help="Whether events are delivered.")]
MAX_ATTEMPTS = Annotated[int | None, typer.Option(min=1, help="Deliveries of one event, the first one included.")]
MULTIPLIER = Annotated[float | None, typer.Option(min=1, help="By which the delay grows after each repetition.")]
INITIAL_DELAY = Annotated[
    int | None, typer.Option(min=0, metavar="MILLISECONDS", help="The delay before the first repetition.")
]
REVEAL = Annotated[
    bool, typer.Option("--reveal", help="Show the secret, if the response has it, and the values of custom headers.")
]


@webhooks.command("list")
@reporting
def list_webhooks(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="The maximum number.")] = 100,
    base_url: BASE_URL = None,
    as_json: AS_JSON = False,
) -> None:
    """List the registered webhooks."""
    with api_client(base_url) as client:
        page = client.webhooks.list(limit=min(limit, PAGE_SIZE))
        found = list(islice(page, limit))
    print_result([webhook_as_json(webhook) for webhook in found] if as_json else webhooks_table(found))


@webhooks.command("get")
@reporting
def get_webhook(
    context: typer.Context,
    webhook_id: WEBHOOK_ID,
    reveal: REVEAL = False,
    base_url: BASE_URL = None,
    as_json: AS_JSON = False,
) -> None:
    """Show one webhook."""
    with api_client(base_url) as client, report_usage_errors():
        _print(client.webhooks.get(webhook_id), reveal=reveal, as_json=as_json)


@webhooks.command("create")
@reporting
def create_webhook(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="The URL that receives the deliveries.", show_default=False)],
    event: EVENT = None,
    secret_file: SECRET_FILE = None,
    headers_file: HEADERS_FILE = None,
    active: ACTIVE = None,
    max_attempts: MAX_ATTEMPTS = None,
    backoff_multiplier: MULTIPLIER = None,
    initial_delay: INITIAL_DELAY = None,
    reveal: REVEAL = False,
    base_url: BASE_URL = None,
    as_json: AS_JSON = False,
) -> None:
    """Register a webhook.

    Its secret is that of --secret-file, else the application's, else that of ENVOYOU_WEBHOOK_SECRET.
    """
    if not event:
        raise typer.BadParameter("name at least one type of event with --event")
    _check_standard_input(secret_file, headers_file)
    settings = _settings(active=active, events=event, headers_file=headers_file)
    settings["secret"] = secret_text(find_secret(target_of(context), "", secret_file))
    policy = _policy_changes(max_attempts, backoff_multiplier, initial_delay)
    with api_client(base_url) as client, report_usage_errors():
        if policy:
            settings["retry_policy"] = DeliveryRetryPolicy(**policy)
        _print(client.webhooks.create(url=url, **settings), reveal=reveal, as_json=as_json)


@webhooks.command("update")
@reporting
def update_webhook(
    context: typer.Context,
    webhook_id: WEBHOOK_ID,
    url: Annotated[str | None, typer.Option(help="The URL that receives the deliveries.")] = None,
    event: EVENT = None,
    secret_file: SECRET_FILE = None,
    headers_file: HEADERS_FILE = None,
    active: ACTIVE = None,
    max_attempts: MAX_ATTEMPTS = None,
    backoff_multiplier: MULTIPLIER = None,
    initial_delay: INITIAL_DELAY = None,
    reveal: REVEAL = False,
    base_url: BASE_URL = None,
    as_json: AS_JSON = False,
) -> None:
    """Change the settings of a webhook that are named, and no others. Events and headers are replaced as a whole."""
    _check_standard_input(secret_file, headers_file)
    settings = _settings(url=url, active=active, events=event or None, headers_file=headers_file)
    if secret_file is not None:
        settings["secret"] = secret_text(find_secret(target_of(context), webhook_id, secret_file))
    policy = _policy_changes(max_attempts, backoff_multiplier, initial_delay)
    with api_client(base_url) as client, report_usage_errors():
        if policy:
            # The policy is replaced as a whole, so what is not named must be sent as it is.
            current = client.webhooks.get(webhook_id).retry_policy or DeliveryRetryPolicy()
            settings["retry_policy"] = replace(current, **policy)
        _print(client.webhooks.update(webhook_id, **settings), reveal=reveal, as_json=as_json)


@webhooks.command("delete")
@reporting
def delete_webhook(
    context: typer.Context,
    webhook_id: WEBHOOK_ID,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    base_url: BASE_URL = None,
    as_json: AS_JSON = False,
) -> None:
    """Delete a webhook. EnvoyOU delivers nothing more to it."""
    with api_client(base_url) as client, report_usage_errors():
        confirm(f"Delete the webhook {webhook_id}?", yes=yes)
        deleted = client.webhooks.delete(webhook_id)
    if as_json:
        print_result({"id": deleted.id, "deleted": True})
    else:
        print_line(f"Deleted: {deleted.id}.")


@contextmanager
def api_client(base_url: str | None) -> Iterator[EnvoyouClient]:
    """Return a client whose errors end the command. The API key comes from the environment only: `ps` shows arguments.

    Raises:
        ConfigurationError: the key is missing, or httpx2 is not installed.
    """
    try:
        with EnvoyouClient(base_url=base_url) as client:
            yield client
    except ApiError as error:
        fail(str(error))


def _check_standard_input(*files: str | None) -> None:
    if files.count(STANDARD_INPUT) > 1:
        raise typer.BadParameter("only one file can be read from standard input")


def _settings(*, headers_file: str | None, **given: Any) -> dict[str, Any]:
    settings = {name: value for name, value in given.items() if value is not None}
    if headers_file is not None:
        settings["headers"] = read_headers(headers_file)
    return settings


def read_headers(file: str) -> dict[str, Any]:
    """Return the headers of the file that `--headers-file` names.

    Raises:
        BadParameter: it is not a JSON object.
        ConfigurationError: it cannot be read.
    """
    if file == STANDARD_INPUT:
        return json_object(file)
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigurationError(f"cannot read the file that --headers-file names: {reason}") from None
    return json_object(text)


def secret_text(secret: str | bytes) -> str:
    """Return a secret as the text that is registered.

    Raises:
        ConfigurationError: it is not text.
    """
    if isinstance(secret, str):
        return secret
    try:
        return secret.decode()
    except UnicodeDecodeError:
        raise ConfigurationError("the secret is not text, so it cannot be registered") from None


def _policy_changes(
    max_attempts: int | None, backoff_multiplier: float | None, initial_delay: int | None
) -> dict[str, Any]:
    given = {
        "max_attempts": max_attempts,
        "backoff_multiplier": backoff_multiplier,
        "initial_delay": initial_delay,
    }
    return {name: value for name, value in given.items() if value is not None}


def _print(webhook: Webhook, *, reveal: bool, as_json: bool) -> None:
    render = webhook_as_json if as_json else webhook_details
    print_result(render(webhook, reveal=reveal))
