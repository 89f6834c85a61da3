"""The command `envoyou webhooks sync`: makes what is registered equal to what a file declares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from envoyou_core.cli.declarations import Declaration, read_declarations
from envoyou_core.cli.events import confirm
from envoyou_core.cli.output import fail, print_line, print_note, print_result, report_usage_errors, reporting
from envoyou_core.cli.parameters import AS_JSON
from envoyou_core.cli.webhooks import BASE_URL, PAGE_SIZE, api_client
from envoyou_core.client import ApiError, DeliveryRetryPolicy, EnvoyouClient, OutcomeUnknownError, Webhook
from envoyou_core.errors import ConfigurationError
from envoyou_core.redaction import MARK, redact

__all__ = ["sync"]

DRIFT: Final = 3
"""The exit code of `--check` if something differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One call that is to be made.

    Attributes:
        action: what it does.
        url: the webhook's URL.
        webhook_id: its id; `None` if it does not exist.
        differences: the members, with what they are and what they will be, as they may be shown.
        arguments: what is sent.
    """

    action: Literal["create", "update", "delete"]
    url: str
    webhook_id: str | None = None
    differences: tuple[tuple[str, str, str], ...] = ()
    arguments: dict[str, Any] = field(default_factory=dict, repr=False)


@reporting
def sync(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The TOML file with the webhooks.", show_default=False)],
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; the exit code is 3 if something differs.")
    ] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Delete the webhooks that the file does not declare.")] = False,
    write_secrets: Annotated[
        bool, typer.Option("--write-secrets", help="Also send the secrets of existing webhooks; they are not compared.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    base_url: BASE_URL = None,
    as_json: AS_JSON = False,
) -> None:
    """Make the registered webhooks equal to a file: show the difference, ask, and apply it.

    Webhooks are identified by their URLs. What the file does not declare stays as it is.
    """
    declared = read_declarations(file)
    with api_client(base_url) as client, report_usage_errors():
        existing = list(client.webhooks.list(limit=PAGE_SIZE))
        changes = plan(declared, existing, prune=prune, write_secrets=write_secrets)
        if not as_json:
            _show(changes)
            if not prune and (others := len(undeclared(declared, existing))):
                print_note(f"Not declared, and left as they are: {others}. --prune deletes them.")
        if check or not changes:
            if as_json:
                print_result({"changes": [_document(change) for change in changes], "applied": 0})
            raise typer.Exit(DRIFT if changes else 0)
        confirm(f"Apply {_count(changes)}?", yes=yes)
        applied = _apply(client, changes, {webhook.id for webhook in existing})
    if as_json:
        print_result({"changes": [_document(change) for change in changes], "applied": applied})
    else:
        print_line(f"Applied: {applied}.")


def plan(
    declared: Sequence[Declaration], existing: Sequence[Webhook], *, prune: bool, write_secrets: bool
) -> list[Change]:
    """Return the changes that make the existing webhooks equal to the declared ones.

    Raises:
        ConfigurationError: several webhooks have a declared URL.
    """
    changes = []
    for declaration in declared:
        found = [webhook for webhook in existing if webhook.url == declaration.url]
        if len(found) > 1:
            ids = ", ".join(webhook.id for webhook in found)
            raise ConfigurationError(f"several webhooks have the URL {declaration.url}: delete all but one of {ids}")
        change = _update(declaration, found[0], write_secret=write_secrets) if found else _creation(declaration)
        if change.arguments:
            changes.append(change)
    if prune:
        surplus = undeclared(declared, existing)
        changes += [Change(action="delete", url=webhook.url, webhook_id=webhook.id) for webhook in surplus]
    return changes


def undeclared(declared: Sequence[Declaration], existing: Sequence[Webhook]) -> list[Webhook]:
    """Return the existing webhooks whose URLs are not declared."""
    urls = {declaration.url for declaration in declared}
    return [webhook for webhook in existing if webhook.url not in urls]


def _creation(declaration: Declaration) -> Change:
    arguments: dict[str, Any] = {"url": declaration.url, "events": declaration.events}
    if declaration.secret is not None:
        arguments["secret"] = declaration.secret
    if declaration.active is not None:
        arguments["active"] = declaration.active
    if declaration.headers is not None:
        arguments["headers"] = dict(declaration.headers)
    if declaration.retry_policy is not None:
        arguments["retry_policy"] = DeliveryRetryPolicy(**declaration.retry_policy)
    shown = tuple((name, "", _shown(name, value)) for name, value in arguments.items() if name != "url")
    return Change(action="create", url=declaration.url, differences=shown, arguments=arguments)


def _update(declaration: Declaration, webhook: Webhook, *, write_secret: bool) -> Change:
    now: dict[str, Any] = {}
    wanted: dict[str, Any] = {}
    if set(declaration.events) != set(webhook.events):
        now["events"], wanted["events"] = webhook.events, declaration.events
    if declaration.active is not None and declaration.active != webhook.active:
        now["active"], wanted["active"] = webhook.active, declaration.active
    if declaration.headers is not None and dict(declaration.headers) != dict(webhook.headers):
        now["headers"], wanted["headers"] = webhook.headers, dict(declaration.headers)
    if declaration.retry_policy is not None:
        policy = webhook.retry_policy or DeliveryRetryPolicy()
        # The policy is replaced as a whole, so what is not declared must be sent as it is.
        changed = replace(policy, **declaration.retry_policy)
        if changed != webhook.retry_policy:
            now["retry_policy"], wanted["retry_policy"] = webhook.retry_policy, changed
    if write_secret and declaration.secret is not None:
        now["secret"], wanted["secret"] = None, declaration.secret
    differences = tuple((name, _shown(name, now[name]), _shown(name, wanted[name])) for name in wanted)
    return Change(
        action="update", url=declaration.url, webhook_id=webhook.id, differences=differences, arguments=wanted
    )


def _shown(name: str, value: Any) -> str:
    if name == "secret":
        return MARK
    if value is None:
        return "not set"
    if name == "headers":
        return ", ".join(f"{header} (value {MARK})" for header in value) or "none"
    if isinstance(value, DeliveryRetryPolicy):
        members = asdict(value)
        return ", ".join(f"{member} {members[member]}" for member in members if member != "extra")
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(sorted(value))


def _apply(client: EnvoyouClient, changes: Iterable[Change], known: set[str]) -> int:
    applied = 0
    try:
        for change in changes:
            if change.action == "create":
                _create(client, change, known)
            elif change.webhook_id is not None and change.action == "update":
                client.webhooks.update(change.webhook_id, **change.arguments)
            elif change.webhook_id is not None:
                client.webhooks.delete(change.webhook_id)
            applied += 1
    except ApiError:
        print_note(f"Applied before the failure: {applied}. Run the command again to apply the rest.")
        raise
    return applied


def _create(client: EnvoyouClient, change: Change, known: set[str]) -> None:
    try:
        client.webhooks.create(**change.arguments)
    except OutcomeUnknownError as error:
        listed = client.webhooks.list(limit=PAGE_SIZE)
        found = [each for each in listed if each.url == change.url and each.id not in known]
        if not found:
            fail(f"{change.url} was not created: {error.reason.message}. Run the command again")
        print_note(f"The answer was lost, and {change.url} was created: {found[0].id}.")


def _show(changes: Sequence[Change]) -> None:
    if not changes:
        print_line("Nothing differs.")
    for change in changes:
        place = "" if change.webhook_id is None else f" ({change.webhook_id})"
        print_line(f"{change.action} {redact(change.url)}{place}")
        for name, before, after in change.differences:
            print_line(f"  {name}: {after}" if change.action == "create" else f"  {name}: {before} -> {after}")


def _count(changes: Sequence[Change]) -> str:
    return f"{len(changes)} change{'s' if len(changes) > 1 else ''}"


def _document(change: Change) -> dict[str, Any]:
    return {
        "action": change.action,
        "url": change.url,
        "id": change.webhook_id,
        "differences": {name: {"is": before, "will_be": after} for name, before, after in change.differences},
    }
