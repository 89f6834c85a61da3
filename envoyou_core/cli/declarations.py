"""Reads the file of `envoyou webhooks sync`: which webhooks are to be registered, in TOML."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from envoyou_core.errors import ConfigurationError
from envoyou_core.reception.stored_secrets import read_secret_file

__all__ = ["Declaration", "read_declarations"]

_TYPES: Final[Mapping[str, tuple[type, str]]] = {
    "url": (str, "text"),
    "events": (list, "a list of types of event"),
    "active": (bool, "true or false"),
    "retry_policy": (dict, "a table"),
    "headers": (dict, "a table of texts"),
    "secret_env": (str, "the name of an environment variable"),
    "secret_file": (str, "the path of a file"),
}
_POLICY_TYPES: Final[Mapping[str, tuple[type | tuple[type, ...], str]]] = {
    "max_attempts": (int, "an integer"),
    "backoff_multiplier": ((int, float), "a number"),
    "initial_delay": (int, "an integer, in milliseconds"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """A webhook as the file declares it. What is `None` is not declared.

    Attributes:
        url: the URL, which identifies it.
        events: the types of event.
        active: whether events are delivered.
        retry_policy: those settings of the policy that are declared.
        headers: all custom headers.
        secret: the signing secret. It is only sent, never compared.
    """

    url: str
    events: tuple[str, ...]
    active: bool | None = None
    retry_policy: Mapping[str, Any] | None = None
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)


def read_declarations(file: Path, environ: Mapping[str, str] = os.environ) -> list[Declaration]:
    """Read the webhooks of a file.

    Raises:
        ConfigurationError: the file cannot be read, has an unknown or a wrong value, or declares a URL twice.
    """
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigurationError(f"{file} is not valid TOML: {error}") from None
    tables = document.get("webhooks")
    if (
        not isinstance(tables, list)
        or set(document) != {"webhooks"}
        or not all(isinstance(each, dict) for each in tables)
    ):
        raise ConfigurationError(f"{file} must consist of tables [[webhooks]]")
    found = [
        _declaration(table, f"webhook {number} of {file}", file.parent, environ)
        for number, table in enumerate(tables, 1)
    ]
    urls = [each.url for each in found]
    for url in urls:
        if urls.count(url) > 1:
            raise ConfigurationError(f"{file} declares {url} twice")
    return found


def _declaration(table: dict[str, Any], place: str, folder: Path, environ: Mapping[str, str]) -> Declaration:
    if "secret" in table:
        raise ConfigurationError(f"{place} has a secret in the file: name it with secret_env or secret_file")
    _check(table, _TYPES, place)
    for name in ("url", "events"):
        if not table.get(name):
            raise ConfigurationError(f"{place} must have {name}")
    if not all(isinstance(each, str) for each in table["events"]):
        raise ConfigurationError(f"events of {place} must be a list of types of event")
    if not all(isinstance(each, str) for each in table.get("headers", {}).values()):
        raise ConfigurationError(f"headers of {place} must be a table of texts")
    if "retry_policy" in table:
        _check(table["retry_policy"], _POLICY_TYPES, f"retry_policy of {place}")
    return Declaration(
        url=table["url"],
        events=tuple(table["events"]),
        active=table.get("active"),
        retry_policy=table.get("retry_policy"),
        headers=table.get("headers"),
        secret=_secret(table, place, folder, environ),
    )


def _check(table: dict[str, Any], types: Mapping[str, tuple[Any, str]], place: str) -> None:
    for name, value in table.items():
        if name not in types:
            raise ConfigurationError(f"{place} has an unknown member {name!r}; known are {', '.join(types)}")
        expected, text = types[name]
        # True is an int.
        if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
            raise ConfigurationError(f"{name} of {place} must be {text}")


def _secret(table: dict[str, Any], place: str, folder: Path, environ: Mapping[str, str]) -> str | None:
    if "secret_env" in table and "secret_file" in table:
        raise ConfigurationError(f"{place} must have either secret_env or secret_file")
    if "secret_file" in table:
        return read_secret_file(folder / table["secret_file"], f"secret_file of {place}")[0]
    if "secret_env" not in table:
        return None
    secret = environ.get(table["secret_env"])
    if not secret:
        raise ConfigurationError(f"the environment variable that secret_env of {place} names is not set")
    return secret
