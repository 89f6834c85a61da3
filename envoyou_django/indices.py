"""Indices that are made while events go on coming in."""

from __future__ import annotations

from typing import Any

from django.db import migrations

__all__ = ["AddIndexOnline"]


class AddIndexOnline(migrations.AddIndex):
    """Makes an index, which on PostgreSQL keeps nobody waiting: `CREATE INDEX` would hold up acceptance until its end.

    For migrations that are not one transaction: interrupted, they can be run again.
    """

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """See `django.db.migrations.AddIndex`."""
        model = to_state.apps.get_model(app_label, self.model_name)
        if not self.allow_migrate_model(schema_editor.connection.alias, model):
            return
        if schema_editor.connection.vendor == "postgresql":
            # What an interruption has left of it cannot be used.
            schema_editor.remove_index(model, self.index, concurrently=True)
            schema_editor.add_index(model, self.index, concurrently=True)
        else:
            table = to_state.models[app_label, self.model_name.lower()].options["db_table"]
            if self.index.name in _indices(schema_editor.connection, table):
                schema_editor.remove_index(model, self.index)
            schema_editor.add_index(model, self.index)


def _indices(connection: Any, table: str) -> Any:
    with connection.cursor() as cursor:
        return connection.introspection.get_constraints(cursor, table)
