"""Finds the secrets that a request is checked against, and the tenant that its event belongs to.

The webhook id header that selects secrets is not signed: anyone can replay a delivery under another id. The tenant is
therefore derived from the secrets and never from the header.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from envoyou_core.errors import ConfigurationError, UnavailableError, UnknownEndpointError, describe
from envoyou_core.event import MAX_NAME_LENGTH, is_plain_text
from envoyou_core.reception.signature import Secret, Secrets, SigningKey, hint_for, signing_keys
from envoyou_core.steps import Await, Call, Flow, run

if TYPE_CHECKING:
    from envoyou_core.reception.secret_cache import AnswerCache

__all__ = [
    "FixedSecrets",
    "KeySource",
    "Keys",
    "LookedUpSecrets",
    "MappedSecrets",
    "SecretAnswer",
    "SecretCallable",
    "SecretSetting",
    "Tenant",
    "key_source",
    "newest_secret",
    "secrets_of_endpoint",
    "written_secrets",
]

MISSING: Final = (
    "the webhook secret is missing: pass secret=..., or set ENVOYOU_WEBHOOK_SECRET and use Webhooks.from_env()"
)


@dataclass(frozen=True, slots=True, repr=False)
class Tenant:
    """The tenant of an endpoint, with the endpoint's secrets.

    A secret callable may return tenants, and a mapping may contain them. Event ids are unique per tenant. Endpoints
    that share a secret must share the tenant: the webhook id is not signed, so a delivery to one of them could be
    replayed to the other. This is checked for a mapping; it cannot be checked for a callable.

    Args:
        id: at most 255 characters without control characters. Take it from your own records: the webhook id that a
            callable gets is what the request claims, and may be spelled differently. `""` is the tenant of an
            application with fixed secrets.
        secret: the signing secret, or a list during rotation, newest first.

    Raises:
        ConfigurationError: the id is invalid.
    """

    id: str
    secret: Secrets

    def __post_init__(self) -> None:
        if not isinstance(self.id, str):
            raise ConfigurationError(f"a Tenant's id must be str, got {type(self.id).__name__}")
        if len(self.id) > MAX_NAME_LENGTH or not is_plain_text(self.id):
            raise ConfigurationError(
                f"a Tenant's id must have at most {MAX_NAME_LENGTH} characters and no control characters"
            )

    def __repr__(self) -> str:
        return f"Tenant({self.id!r})"


SecretAnswer = Tenant | Secret | list[str] | list[bytes] | list[Secret] | None
"""The secrets of a webhook id, newest first, or a `Tenant`; `None` for an unknown id."""

SecretCallable = Callable[[str], SecretAnswer | Awaitable[SecretAnswer]]
"""Returns the secrets of a webhook id; sync or async.

It may be called from several threads at once. Its answers are cached for a few seconds, so they must depend on the
webhook id only, and not for instance on the request's host.
"""

SecretMapping = Mapping[str, Tenant | Secrets]
"""The secrets of each webhook id, newest first."""

SecretSetting = Secrets | SecretMapping | SecretCallable


class Keys(msgspec.Struct, frozen=True):
    """The keys that a request is checked against, newest first, and their tenant."""

    tenant: str
    keys: tuple[SigningKey, ...]


class KeySource(Protocol):
    """Finds the keys for a webhook id."""

    def find(self, webhook_id: str | None) -> Keys | Flow[Keys]:
        """Return the keys for a webhook id, which comes from an unsigned header; or a flow, if they are looked up.

        Raises:
            UnknownEndpointError: the id is unknown.
            UnavailableError: the look-up failed.
        """


class FixedSecrets:
    """The same secrets for every request. The tenant is `""`."""

    def __init__(self, secret: Secrets) -> None:
        self._keys = Keys("", signing_keys(secret))

    def find(self, webhook_id: str | None) -> Keys:
        """See `KeySource.find`."""
        return self._keys


class MappedSecrets:
    """Secrets by webhook id. The tenant is the id as the mapping spells it, or the id of a `Tenant`.

    Raises:
        ConfigurationError: the mapping is empty, an id or a secret is invalid, or two tenants share a secret.
    """

    def __init__(self, secrets: SecretMapping) -> None:
        if not secrets:
            raise ConfigurationError(MISSING)
        self._keys: dict[str, Keys] = {}
        owners: dict[str, str] = {}
        for position, (webhook_id, value) in enumerate(secrets.items(), start=1):
            # Name the entry by its position: if keys and values are swapped by mistake, the keys are secrets.
            place = f"entry {position} of the secrets by webhook id"
            keys = _mapped_keys(webhook_id, value, place)
            for key in keys.keys:
                if owners.setdefault(key.fingerprint(), keys.tenant) != keys.tenant:
                    raise ConfigurationError(
                        f"{place} shares a secret with another entry, although the webhook id is not signed: make both "
                        "a Tenant with the same id"
                    )
            self._keys[webhook_id] = keys

    def find(self, webhook_id: str | None) -> Keys:
        """See `KeySource.find`."""
        keys = None if webhook_id is None else self._keys.get(webhook_id)
        if keys is None:
            raise UnknownEndpointError
        return keys


class LookedUpSecrets:
    """Secrets that the user's callable looks up by webhook id.

    The tenant is the id of a `Tenant`. For plain secrets it is a fingerprint of the oldest one, which stays the same
    when a newer secret is added, and changes when the oldest one is removed.

    Args:
        function: the callable, sync or async.
        clock: returns epoch seconds, for the cache of its answers.
    """

    def __init__(self, function: SecretCallable, clock: Callable[[], float]) -> None:
        self._function = function
        from envoyou_core.reception.secret_cache import AnswerCache

        self._answers: AnswerCache[Keys] = AnswerCache(clock)

    def find(self, webhook_id: str | None) -> Flow[Keys]:
        """See `KeySource.find`."""
        if webhook_id is None:
            raise UnknownEndpointError
        keys = yield from self._answers.find(webhook_id, lambda: self._look_up(webhook_id))
        if keys is None:
            raise UnknownEndpointError
        return keys

    def _look_up(self, webhook_id: str) -> Flow[Keys | None]:
        try:
            return _keys_of_answer((yield from _call(self._function, webhook_id)))
        except Exception as error:
            raise UnavailableError(f"the secret callable failed: {describe(error)}") from error


def key_source(secret: SecretSetting | None, *, clock: Callable[[], float]) -> KeySource:
    """Create the `KeySource` for the `secret` setting.

    Raises:
        ConfigurationError: the setting is missing, empty or invalid.
    """
    if secret is None:
        raise ConfigurationError(MISSING)
    if isinstance(secret, Mapping):
        return MappedSecrets(secret)
    if callable(secret):
        return LookedUpSecrets(secret, clock)
    return FixedSecrets(secret)


def newest_secret(secret: SecretSetting | None, webhook_id: str) -> Secret:
    """Return the secret to sign a sample delivery to the endpoint `webhook_id` with.

    Raises:
        ConfigurationError: the endpoint has no secret, or an invalid one.
    """
    return secrets_of_endpoint(secret, webhook_id)[0]


def secrets_of_endpoint(secret: SecretSetting | None, webhook_id: str) -> tuple[Secret, ...]:
    """Return the secrets of the endpoint `webhook_id`, newest first.

    Raises:
        ConfigurationError: the endpoint has no secret, or an invalid one.
    """
    answer: object
    if isinstance(secret, Mapping):
        answer = secret.get(webhook_id)
    elif callable(secret):
        answer = run(_call(secret, webhook_id))
    else:
        answer = list(secret) if type(secret) is tuple else secret
    if _keys_of_answer(answer) is None:
        raise ConfigurationError(f"no secret for the webhook id {webhook_id!r}")
    return _secrets_of(answer)


def written_secrets(secret: SecretSetting | None) -> tuple[Secret, ...]:
    """Return the secrets that the setting itself contains; none if it is a callable."""
    answers = secret.values() if isinstance(secret, Mapping) else [] if callable(secret) else [secret]
    return tuple(each for answer in answers for each in _secrets_of(answer))


def _call(function: SecretCallable, webhook_id: str) -> Flow[Any]:
    answer = yield Call(lambda: function(webhook_id))
    if inspect.isawaitable(answer):
        answer = yield Await(lambda: answer)
    return answer


def _mapped_keys(webhook_id: object, value: object, place: str) -> Keys:
    if not isinstance(webhook_id, str):
        raise ConfigurationError(f"{place} must have a webhook id as its key, got {type(webhook_id).__name__}")
    is_sendable = 0 < len(webhook_id) <= MAX_NAME_LENGTH and is_plain_text(webhook_id)
    if not is_sendable or webhook_id != webhook_id.strip():
        raise ConfigurationError(
            f"{place} must have a webhook id as its key: 1 to {MAX_NAME_LENGTH} characters, no control characters, no "
            "white space around them"
        )
    try:
        if isinstance(value, Tenant):
            return Keys(value.id, _strict_keys(value.secret))
        return Keys(webhook_id, _strict_keys(value))
    except ConfigurationError as error:
        raise ConfigurationError(f"{place}: {error}") from None


def _keys_of_answer(answer: object) -> Keys | None:
    if answer is None or (isinstance(answer, str | bytes | list) and not answer):
        return None
    if isinstance(answer, Tenant):
        return Keys(answer.id, _strict_keys(answer.secret))
    keys = _strict_keys(answer)
    return Keys(f"fingerprint:{keys[-1].fingerprint()}", keys)


def _strict_keys(secret: object) -> tuple[SigningKey, ...]:
    # Tuples and other iterables are refused: they may be database rows, whose columns are not all secrets.
    if not isinstance(secret, str | bytes | list):
        raise ConfigurationError(
            f"the secrets of a webhook id must be str, bytes, a list of these, or a Tenant, got "
            f"{type(secret).__name__}{hint_for(secret)}"
        )
    return signing_keys(secret)


def _secrets_of(answer: object) -> tuple[Secret, ...]:
    if isinstance(answer, Tenant):
        answer = answer.secret
    if isinstance(answer, str | bytes):
        return (answer,)
    return tuple(answer) if isinstance(answer, list | tuple) else ()
