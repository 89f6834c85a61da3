"""Reads secrets from environment variables and files."""

from __future__ import annotations

import os
from typing import Final

from envoyou_core.errors import ConfigurationError

__all__ = ["read_secret_file", "split_secrets"]

MIN_SECRET_IN_LIST: Final = 16
"""Bytes. A shorter part is more likely a piece of a single secret that contains a comma."""

MAX_FILE_SIZE: Final = 65_536
"""Bytes."""


def split_secrets(value: str, setting: str) -> str | list[str]:
    """Split the value of an environment variable into secrets, newest first, at commas. A single secret stays a string.

    Args:
        value: the variable's value.
        setting: the variable's name, for the error.

    Raises:
        ConfigurationError: a part is shorter than 16 bytes.

    Examples:
        >>> split_secrets("whsec_of_this_year,whsec_of_last_year", "ENVOYOU_WEBHOOK_SECRET")
        ['whsec_of_this_year', 'whsec_of_last_year']
    """
    if "," not in value:
        return value
    parts = value.split(",")
    if any(len(part.encode(errors="surrogateescape")) < MIN_SECRET_IN_LIST for part in parts):
        raise ConfigurationError(
            f"{setting} contains a comma, which separates several secrets, and one of them has fewer than "
            f"{MIN_SECRET_IN_LIST} bytes; if the comma is part of the secret, write the secret to a file and set "
            f"{setting}_FILE"
        )
    return parts


def read_secret_file(path: object, setting: str) -> list[str]:
    """Read the secrets from a file, newest first: one per line, in UTF-8. Empty lines are skipped.

    Args:
        path: the file's path.
        setting: the setting that names it, for the error.

    Raises:
        ConfigurationError: the file cannot be read, or has no secret. The error does not repeat the path: it may be a
            secret that was given to the wrong setting.
    """
    if not isinstance(path, str | os.PathLike):
        raise ConfigurationError(f"{setting} must be the path of a file, got {type(path).__name__}")
    # Most applications set the secret itself.
    from pathlib import Path

    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_FILE_SIZE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigurationError(f"cannot read the file that {setting} names: {reason}") from None
    if len(content) > MAX_FILE_SIZE:
        raise ConfigurationError(
            f"the file that {setting} names must have at most {MAX_FILE_SIZE} bytes, got a larger one"
        )
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError:
        raise ConfigurationError(f"the file that {setting} names must be encoded in UTF-8") from None
    secrets = [secret for line in lines if (secret := line.removesuffix("\r"))]
    if not secrets:
        raise ConfigurationError(f"the file that {setting} names contains no secret")
    return secrets
