"""Opens the inbox, the spool and the nonce store that the settings name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from envoyou_core.errors import ConfigurationError
from envoyou_core.inbox import WorkerInbox, open_inbox
from envoyou_core.nonces import NonceStore, open_nonces

if TYPE_CHECKING:
    from envoyou_core.spool.spool import Spool

__all__ = ["as_inbox", "as_nonce_store", "as_spool"]


def as_inbox(setting: str | WorkerInbox, *, name: str, clock: Callable[[], float]) -> WorkerInbox:
    """Return the inbox given as an object or a URL.

    Raises:
        ConfigurationError: it is neither, the URL is invalid, or the inbox has another name.
    """
    if isinstance(setting, str):
        return open_inbox(setting, name=name, clock=clock)
    if not isinstance(setting, WorkerInbox):
        raise ConfigurationError(f"inbox must be a URL or an inbox, got {type(setting).__name__}")
    if setting.name != name:
        raise ConfigurationError(f"the name of the inbox must be {name!r}, got {setting.name!r}")
    return setting


def as_nonce_store(setting: str | NonceStore | None) -> NonceStore:
    """Return the nonce store given as an object or a URL; by default, one in the memory of the process.

    Raises:
        ConfigurationError: it is neither, or the URL is invalid.
    """
    if setting is None or isinstance(setting, str):
        return open_nonces(setting or "memory:")
    if not isinstance(setting, NonceStore):
        raise ConfigurationError(f"nonces must be a URL or a nonce store, got {type(setting).__name__}")
    return setting


def as_spool(
    setting: str | Literal[False] | None, *, name: str, inbox: WorkerInbox, clock: Callable[[], float]
) -> Spool | None:
    """Return the spool at a URL, if one is given; its file must not be that of `inbox`.

    Raises:
        ConfigurationError: the URL is invalid, or SQLAlchemy is not installed.
    """
    if setting is None or setting is False:
        return None
    if not isinstance(setting, str):
        raise ConfigurationError(
            f"spool must be a URL such as sqlite:///spool.db, or False for none, got {type(setting).__name__}"
        )
    try:
        from envoyou_core.spool.spool import Spool
    except ImportError as error:
        raise ConfigurationError("a spool requires SQLAlchemy 2: pip install 'envoyou-webhooks[sql]'") from error
    return Spool(setting, name=name, apart_from=getattr(inbox, "file", None), clock=clock)
