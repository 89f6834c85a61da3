"""Checks of the signing secrets. No finding contains a secret or a part of one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from envoyou_core.doctor.files import check_private
from envoyou_core.doctor.findings import Finding
from envoyou_core.errors import ConfigurationError
from envoyou_core.reception.secret_strength import weakness_of
from envoyou_core.reception.signature import Secret
from envoyou_core.webhooks import Webhooks

__all__ = ["check_secret_file", "check_secrets"]

CHECK: Final = "secret"

REPLACE: Final = (
    "make a secret with `envoyou secret new`, register it with EnvoyOU, and set ENVOYOU_WEBHOOK_SECRET to it"
)


def check_secrets(webhooks: Webhooks) -> Iterator[Finding]:
    """Check the secrets that the settings contain. Those that a callable returns are not known."""
    secrets = webhooks.written_secrets
    if not secrets:
        yield Finding.ok(CHECK, "secrets are looked up by a function, and cannot be checked here")
        return
    weaknesses = [weakness_of(secret) for secret in secrets]
    for number, weakness in enumerate(weaknesses, start=1):
        if weakness:
            name = f"secret {number} of {len(secrets)}" if len(secrets) > 1 else "the secret"
            yield Finding.problem(CHECK, f"{name} {weakness}, so anyone can forge events", REPLACE)
    if len(rotated := _secrets_of_all(webhooks)) > 1:
        yield Finding.warning(
            CHECK,
            f"{len(rotated)} secrets are accepted",
            "after a rotation, remove the old secret as soon as EnvoyOU signs with the new one",
        )
    elif not any(weaknesses):
        yield Finding.ok(CHECK, "the secret is set" if rotated else f"the secrets of {len(secrets)} endpoints are set")


def check_secret_file(environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Check that only its owner can read the file that ENVOYOU_WEBHOOK_SECRET_FILE names."""
    path = environ.get("ENVOYOU_WEBHOOK_SECRET_FILE")
    if path and Path(path).is_file():
        yield from check_private(CHECK, Path(path), "the secret file")


def _secrets_of_all(webhooks: Webhooks) -> tuple[Secret, ...]:
    """Return the secrets that apply to every endpoint; none if each endpoint has its own."""
    try:
        return webhooks.secrets_of("")
    except ConfigurationError:
        return ()
