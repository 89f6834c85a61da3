"""What `manage.py envoyou doctor` checks beyond the core: migrations, and Django's system checks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from django.conf import settings
from django.core import checks
from django.db import connections
from django.db.migrations.executor import MigrationExecutor

from envoyou_core.adapter import Finding
from envoyou_django.checks import TAG
from envoyou_django.checks.databases import inbox_alias

__all__ = ["check_migrations", "check_project"]

CHECKED_ELSEWHERE: Final = frozenset({"envoyou.W003", "envoyou.W008"})
"""No handler, and a sample as the secret: the core finds them."""

APP: Final = "envoyou_django"


def check_migrations() -> Iterator[Finding]:
    """Check that the migrations of the inbox's tables are applied."""
    alias = inbox_alias()
    executor = MigrationExecutor(connections[alias])
    targets = [node for node in executor.loader.graph.leaf_nodes() if node[0] == APP]
    missing = [migration.name for migration, _ in executor.migration_plan(targets) if migration.app_label == APP]
    if missing:
        yield Finding.problem(
            "schema",
            f"migrations of {APP} are not applied: {', '.join(missing)}",
            f"python manage.py migrate --database {alias}",
        )
    else:
        yield Finding.ok("schema", "the migrations are applied")


def check_project() -> Iterator[Finding]:
    """Run the system checks of this app; outside of DEBUG also those of a deployment."""
    messages = checks.run_checks(tags=[TAG], include_deployment_checks=not settings.DEBUG, databases=[inbox_alias()])
    shown = [it for it in messages if not it.is_silenced() and it.id not in CHECKED_ELSEWHERE]
    for message in shown:
        make = Finding.problem if message.is_serious() else Finding.warning
        yield make("project", f"{message.id}: {message.msg}", message.hint or "see Django's system checks")
    if not shown:
        yield Finding.ok("project", "Django's system checks find nothing")
