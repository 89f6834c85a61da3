"""Which secrets a request is checked against: fixed ones, or those that a callable finds for its webhook id."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from envoyou_core.errors import ConfigurationError, UnknownEndpointError
from envoyou_core.reception.signature import Secret, SigningKey, signing_keys

__all__ = [
    "FixedSecrets",
    "KeySource",
    "Keys",
    "SecretCallable",
    "SecretSetting",
    "Tenant",
    "TenantSecrets",
    "key_source",
]


@dataclass(frozen=True, slots=True, repr=False)
class Tenant:
    """What a secret callable may return: whose endpoint it is, and the endpoint's secrets.

    Event ids are told apart by tenant. Endpoints that share a secret must share the tenant: the webhook id header is
    not signed, and one event could otherwise be delivered again under the other id. A callable that returns plain
    secrets makes every webhook id a tenant of its own.
    """

    id: str
    secret: Secret | Iterable[Secret]

    def __repr__(self) -> str:
        return f"Tenant({self.id!r})"


SecretCallable = Callable[[str], Tenant | Secret | Iterable[Secret] | None]
"""From a webhook id to its secrets; `None` where none is known. It may be called from several threads at once."""

SecretSetting = Secret | Iterable[Secret] | SecretCallable


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that a request is checked against, and the tenant that they belong to."""

    tenant: str
    keys: tuple[SigningKey, ...]


class KeySource(Protocol):
    """Finds the keys for a webhook id. `blocking` says whether that may wait for something outside the process."""

    blocking: bool

    def find(self, webhook_id: str | None) -> Keys:
        """The keys for the webhook id of the (unsigned) header.

        Raises:
            UnknownEndpointError: there are none.
        """


class FixedSecrets:
    """The same secrets for every request."""

    blocking = False

    def __init__(self, secret: Secret | Iterable[Secret]) -> None:
        self._keys = Keys("", signing_keys(secret))

    def find(self, webhook_id: str | None) -> Keys:
        """See `KeySource.find`."""
        return self._keys


class TenantSecrets:
    """Secrets that a callable of the user's finds by webhook id."""

    blocking = True

    def __init__(self, secret: SecretCallable) -> None:
        self._find = secret

    def find(self, webhook_id: str | None) -> Keys:
        """See `KeySource.find`."""
        if webhook_id is None:
            raise UnknownEndpointError
        found = self._find(webhook_id)
        if not found:
            raise UnknownEndpointError
        if isinstance(found, Tenant):
            return Keys(found.id, signing_keys(found.secret))
        return Keys(webhook_id, signing_keys(found))


def key_source(secret: SecretSetting | None) -> KeySource:
    """Make the `secret` setting ready.

    Raises:
        ConfigurationError: it is missing, empty or of a type that is no secret.
    """
    if secret is None:
        raise ConfigurationError("there is no webhook secret: give secret=..., or set ENVOYOU_WEBHOOK_SECRET")
    if callable(secret):
        return TenantSecrets(secret)
    return FixedSecrets(secret)
