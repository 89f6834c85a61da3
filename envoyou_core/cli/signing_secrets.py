"""Signing secrets on the command line: makes new ones, and finds the one that a command signs or checks with."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer

from envoyou_core.cli.output import print_text
from envoyou_core.cli.parameters import STANDARD_INPUT
from envoyou_core.cli.target import Target
from envoyou_core.errors import ConfigurationError
from envoyou_core.reception.secrets import secrets_of_endpoint
from envoyou_core.reception.signature import Secret
from envoyou_core.reception.stored_secrets import read_secret_file
from envoyou_core.settings import SECRET_NAMES, SETTING_NAMES, read_environment

__all__ = ["SECRET_FILE", "find_secret", "find_secrets", "secret"]

RANDOM_BYTES = 32
"""In a new secret: as many as the hash of a signature has."""

SECRET_FILE = Annotated[
    str | None, typer.Option(metavar="FILE", help="A file with the signing secret; - reads it from standard input.")
]

secret = typer.Typer(no_args_is_help=True, help="Make signing secrets.")


@secret.command()
def new() -> None:
    """Print a new random signing secret, to be kept where only this application and the platform can read it."""
    print_text(f"whsec_{secrets.token_urlsafe(RANDOM_BYTES)}")


@secret.callback()
def _secrets() -> None:
    """Make signing secrets."""


def find_secret(target: Target, webhook_id: str, file: str | None) -> Secret:
    """Return the newest secret to sign with; see `find_secrets`."""
    return find_secrets(target, webhook_id, file)[0]


def find_secrets(target: Target, webhook_id: str, file: str | None) -> tuple[Secret, ...]:
    """Return the secrets of a file, else of the application, else of the environment, newest first.

    Args:
        target: the application.
        webhook_id: the endpoint's id, if secrets are configured by endpoint.
        file: the value of `--secret-file`.

    Raises:
        ConfigurationError: there is no secret.
    """
    if file == STANDARD_INPUT:
        # One secret a line, as in a file.
        return secrets_of_endpoint([line for line in sys.stdin.read().splitlines() if line], webhook_id)
    if file is not None:
        return secrets_of_endpoint(read_secret_file(Path(file), "--secret-file"), webhook_id)
    if target.is_named:
        return target.find().secrets_of(webhook_id)
    found = read_environment(os.environ, others=SETTING_NAMES - SECRET_NAMES).get("secret")
    if found is None:
        raise ConfigurationError(
            "the webhook secret is missing: set ENVOYOU_WEBHOOK_SECRET, name the application with --app, or use "
            "--secret-file"
        )
    return secrets_of_endpoint(found, webhook_id)
