"""Indices that are made while events go on coming in."""

from __future__ import annotations

from typing import Any

from django.db import migrations

__all__ = ["AddIndexBesideWriters"]


class AddIndexBesideWriters(migrations.AddIndex):
    """On PostgreSQL `CREATE INDEX` would make acceptance wait for its end; this one does not."""

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
            schema_editor.add_index(model, self.index)
