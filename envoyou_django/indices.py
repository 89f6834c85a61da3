"""Migration operations that block no writes, and can be run again if the migration was interrupted."""

from __future__ import annotations

from typing import Any

from django.db import migrations, models, transaction
from django.db.migrations.operations.base import Operation

__all__ = ["AddFieldOnce", "AddIndexOnline", "CreateModelOnce", "ReplaceUniqueKeyOnline"]


class AddFieldOnce(migrations.AddField):
    """Adds a column, unless an interrupted run of the migration has added it."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        connection = schema_editor.connection
        if not self.allow_migrate_model(connection.alias, model):
            return
        options = model._meta  # noqa: SLF001 - a documented API of Django
        with connection.cursor() as cursor:
            columns = connection.introspection.get_table_description(cursor, options.db_table)
        if options.get_field(self.name).column not in {column.name for column in columns}:
            super().database_forwards(app_label, schema_editor, from_state, to_state)


class CreateModelOnce(migrations.CreateModel):
    """Creates a table, unless an interrupted run of the migration has created it."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        table = to_state.models[app_label, self.name.lower()].options["db_table"]
        if table not in schema_editor.connection.introspection.table_names():
            super().database_forwards(app_label, schema_editor, from_state, to_state)


class AddIndexOnline(migrations.AddIndex):
    """Creates an index; on PostgreSQL concurrently, because `CREATE INDEX` would block writes until it is done.

    The migration must have `atomic = False`. It can be run again if it was interrupted.
    """

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        if not self.allow_migrate_model(schema_editor.connection.alias, model):
            return
        if schema_editor.connection.vendor == "postgresql":
            # An interrupted run leaves an invalid index.
            schema_editor.remove_index(model, self.index, concurrently=True)
            schema_editor.add_index(model, self.index, concurrently=True)
        else:
            table = to_state.models[app_label, self.model_name.lower()].options["db_table"]
            if self.index.name in _indices(schema_editor.connection, table):
                schema_editor.remove_index(model, self.index)
            schema_editor.add_index(model, self.index)


class ReplaceUniqueKeyOnline(Operation):
    """Replaces a unique key by another one over the same columns; one of the two is enforced at any time.

    PostgreSQL and MariaDB build the new key without blocking writes. SQLite copies the table in one transaction:
    writers wait until its end, or fail if it takes longer than their timeout for the lock.

    The migration must have `atomic = False`. It can be run again if it was interrupted.

    Args:
        model_name: the model of the table.
        old: the key to remove.
        new: the key to add.
    """

    reduces_to_sql = False

    def __init__(self, model_name: str, old: models.UniqueConstraint, new: models.UniqueConstraint) -> None:
        self.model_name = model_name
        self.old = old
        self.new = new

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        return type(self).__qualname__, [], {"model_name": self.model_name, "old": self.old, "new": self.new}

    def state_forwards(self, app_label: str, state: Any) -> None:
        state.remove_constraint(app_label, self.model_name.lower(), self.old.name)
        state.add_constraint(app_label, self.model_name.lower(), self.new)

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        self._replace(app_label, schema_editor, to_state, self.old, self.new)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        self._replace(app_label, schema_editor, to_state, self.new, self.old)

    def _replace(self, app_label: str, schema_editor: Any, state: Any, old: Any, new: Any) -> None:
        model = state.apps.get_model(app_label, self.model_name)
        connection = schema_editor.connection
        if not self.allow_migrate_model(connection.alias, model):
            return
        if connection.vendor == "sqlite":
            with transaction.atomic(using=connection.alias):
                # The copy has the constraints of the model in `state`, so not the old key.
                schema_editor.add_constraint(model, new)
            return
        table = state.models[app_label, self.model_name.lower()].options["db_table"]
        existing = _indices(connection, table)
        if connection.vendor == "postgresql":
            self._build_online(schema_editor, model, table, new)
        elif new.name not in existing:
            schema_editor.add_constraint(model, new)
        if old.name in existing:
            schema_editor.remove_constraint(model, old)

    def _build_online(self, schema_editor: Any, model: Any, table: str, key: models.UniqueConstraint) -> None:
        connection = schema_editor.connection
        quote = connection.ops.quote_name
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT 1 FROM pg_constraint WHERE conname = %s AND conrelid = %s::regclass", [key.name, quote(table)]
            )
            if cursor.fetchone():
                return
        columns = ", ".join(quote(model._meta.get_field(field).column) for field in key.fields)  # noqa: SLF001 - public
        for statement in (
            # An interrupted run leaves an invalid index, or one that is not a constraint yet.
            f"DROP INDEX CONCURRENTLY IF EXISTS {quote(key.name)}",
            f"CREATE UNIQUE INDEX CONCURRENTLY {quote(key.name)} ON {quote(table)} ({columns})",
            f"ALTER TABLE {quote(table)} ADD CONSTRAINT {quote(key.name)} UNIQUE USING INDEX {quote(key.name)}",
        ):
            schema_editor.execute(statement)

    def describe(self) -> str:
        return f"Replace the unique key {self.old.name} on model {self.model_name} by {self.new.name}"

    @property
    def migration_name_fragment(self) -> str:
        return f"replace_{self.old.name}"


def _indices(connection: Any, table: str) -> Any:
    with connection.cursor() as cursor:
        return connection.introspection.get_constraints(cursor, table)
