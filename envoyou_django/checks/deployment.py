"""Checks of a deployment, run with `--deploy`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.core import checks
from django.db import connections

from envoyou_core.adapter import weakness_of
from envoyou_django import conf
from envoyou_django.checks.databases import inbox_alias

__all__ = ["check_deployment", "check_secret", "check_secret_location"]


def check_secret() -> Iterator[checks.CheckMessage]:
    """Check that the secret is not a placeholder and not easy to guess."""
    for secret in conf.written_secrets():
        if weakness := weakness_of(secret):
            yield checks.Warning(
                f"A webhook secret {weakness}, so anyone can forge events.",
                hint="Use the secret that EnvoyOU generated for the endpoint, or a long random string.",
                id="envoyou.W008",
            )


def check_secret_location() -> Iterator[checks.CheckMessage]:
    """Check that the secret is not in the code."""
    for name, source in _sources_of_settings():
        if any(secret in source for secret in conf.written_secrets()):
            yield checks.Warning(
                f"A webhook secret is written in {name}, so anyone who can read the code can forge events.",
                hint='Read it from the environment: os.environ["ENVOYOU_WEBHOOK_SECRET"].',
                id="envoyou.W009",
            )


def _sources_of_settings() -> Iterator[tuple[str, str]]:
    """Yield the name and the source of the settings module and of the other modules in its package."""
    module = getattr(settings, "SETTINGS_MODULE", None)
    if not module:
        return
    package = module.rpartition(".")[0]
    siblings = f"{package}." if "settings" in package.split(".") else f"{module}."
    for name in sorted(sys.modules):
        if name == module or name.startswith(siblings):
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).suffix == ".py":
                yield name, Path(file).read_text(encoding="utf-8", errors="replace")


def check_deployment() -> Iterator[checks.CheckMessage]:
    """Check that accepted events survive a restart, and that a worker handles them."""
    if conf.is_manual():
        yield checks.Warning(
            f'{conf.SETTING}["HANDOFF"] is "manual", so web processes do not handle events.',
            hint="Run `manage.py envoyou worker`, or run it with --drain from cron; then silence this check.",
            id="envoyou.W010",
        )
    connection = connections[inbox_alias()]
    if connection.vendor == "sqlite" and connection.is_in_memory_db():
        yield checks.Warning(
            f"The inbox's SQLite database {connection.alias!r} is in memory, so a restart loses accepted events.",
            hint="Use a database file or a database server.",
            id="envoyou.W011",
        )
