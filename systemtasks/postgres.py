"""Operations of migrations that only run on Postgres.

On any other one the migrations make nothing: a project's tests may run on SQLite, and record
nothing there. The models say the same by `required_db_vendor`.
"""

from typing import Any

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations import CreateModel, RunSQL
from django.db.migrations.state import ProjectState


class RunPostgresSQL(RunSQL):
    """Run SQL in Postgres, and do nothing in another database."""

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Run it."""
        if schema_editor.connection.vendor == "postgresql":
            super().database_forwards(app_label, schema_editor, from_state, to_state)

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Undo it."""
        if schema_editor.connection.vendor == "postgresql":
            super().database_backwards(app_label, schema_editor, from_state, to_state)


class CreatePartitionedModel(CreateModel):
    """Create the table of a model, partitioned by ranges of its primary key, `id`.

    To Django it is an ordinary model. The table has a default partition, whose name ends in
    `_default`.
    """

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Create the table."""
        # Django documents no way to end CREATE TABLE otherwise.
        editor: Any = schema_editor
        statement = editor.sql_create_table
        editor.sql_create_table = f"{statement} PARTITION BY RANGE (id)"
        try:
            super().database_forwards(app_label, schema_editor, from_state, to_state)
        finally:
            editor.sql_create_table = statement
        model = to_state.apps.get_model(app_label, self.name)
        # Not on another kind of database either, as the model's `required_db_vendor` says.
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            table = model._meta.db_table
            quote = schema_editor.quote_name
            schema_editor.execute(
                f"CREATE TABLE {quote(f'{table}_default')} PARTITION OF {quote(table)} DEFAULT"
            )
