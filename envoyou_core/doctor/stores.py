"""Checks that the inbox and the spool can be opened and written, and that their files are private."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from envoyou_core.doctor.files import check_disk, check_private
from envoyou_core.doctor.findings import Finding, text_of
from envoyou_core.doctor.servers import check_server
from envoyou_core.errors import ConfigurationError
from envoyou_core.inbox import Inbox
from envoyou_core.inbox.files import location_of
from envoyou_core.inbox.inspection import InspectableInbox

if TYPE_CHECKING:
    from envoyou_core.webhooks import Webhooks

__all__ = ["check_inbox", "check_spool", "opens"]

UNREACHABLE: Final = "start the database, or correct its URL, host, user and password; `envoyou stats` shows the URL"
NOT_WRITABLE: Final = (
    "give the user of the application the right to write: to the file and to its directory, or to the tables"
)


def opens(inbox: Inbox) -> bool:
    """Whether an inbox or a spool can be opened, so that checks of its content make sense."""
    try:
        inbox.open()
    except Exception:
        return False
    return True


def check_inbox(webhooks: Webhooks) -> Iterator[Finding]:
    """Check that the inbox is reachable, current, writable, private, and on a server with safe settings."""
    inbox = webhooks.inbox
    yield from _check_store("inbox", inbox)
    if isinstance(inbox, InspectableInbox) and opens(inbox):
        yield from check_server(inbox)
    elif not isinstance(inbox, InspectableInbox) and "Memory" in type(inbox).__name__:
        yield Finding.problem(
            "inbox",
            "the inbox is in memory: a restart loses every event",
            "set ENVOYOU_INBOX to a URL such as sqlite:////srv/app/envoyou.db",
        )


def check_spool(webhooks: Webhooks) -> Iterator[Finding]:
    """Check that the spool can be written and is empty. A remote inbox should have one."""
    spool = webhooks.spool
    if spool is None:
        if webhooks.lacks_spool:
            yield Finding.warning(
                "spool",
                "there is no spool: events are lost if the database is down for longer than EnvoyOU retries",
                "set ENVOYOU_SPOOL to a file on this machine, or to `off` if that is intended",
            )
        return
    yield from _check_store("spool", spool)
    if opens(spool) and (waiting := spool.stats().total):
        yield Finding.warning(
            "spool",
            f"{waiting} {'event waits' if waiting == 1 else 'events wait'} in the spool",
            "they are moved when the inbox is up and the application runs; `envoyou events list` shows refused ones",
        )


def _check_store(name: str, store: Inbox) -> Iterator[Finding]:
    location = location_of(store)
    try:
        store.open()
    except ConfigurationError as error:
        reason, advice = _divided(text_of(error))
        yield Finding.problem(name, f"the {name} {location} is not ready: {reason}", advice)
        return
    except Exception as error:
        advice = NOT_WRITABLE if "readonly" in str(error) else UNREACHABLE
        yield Finding.problem(name, f"the {name} {location} cannot be opened: {text_of(error)}", advice)
        return
    yield Finding.ok(name, f"the {name} {location} is open, and its tables are current")
    if isinstance(store, InspectableInbox):
        yield from _check_writable(name, store)
        if (file := store.database_file) is not None:
            yield from _check_file(name, file)


def _check_writable(name: str, store: InspectableInbox) -> Iterator[Finding]:
    try:
        store.try_write()
    except Exception as error:
        yield Finding.problem("writable", f"the {name} cannot be written: {text_of(error)}", NOT_WRITABLE)
    else:
        yield Finding.ok("writable", f"the {name} can be written; an insert was rolled back")


def _check_file(name: str, file: Path) -> Iterator[Finding]:
    if file.exists():
        yield from check_private("private", file, f"the {name}")
        yield from check_disk([(f"the {name}", file)])


def _divided(text: str) -> tuple[str, str]:
    """Divide the text of a configuration error. Those of the inbox say what to do behind the last colon."""
    reason, _, advice = text.rpartition(": ")
    return (reason, advice) if reason else (text, "correct the setting")
