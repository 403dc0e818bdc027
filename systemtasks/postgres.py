"""Operations of migrations that only run on Postgres.

On any other database the migrations create nothing: a project's tests may run on SQLite, and record
nothing there. The models' `required_db_vendor` has the same effect.
"""

from typing import Any

from django.contrib.postgres.operations import TrigramExtension
from django.db import router
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations import CreateModel, RunSQL
from django.db.migrations.state import ProjectState

SEARCH_ITS_SCHEMA = """
SELECT set_config('search_path', concat_ws(', ', nullif(current_setting('search_path'), ''),
    (SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace
     WHERE extname = 'pg_trgm')), true)
"""


class RunPostgresSQL(RunSQL):
    """Run SQL in Postgres, and do nothing in another database."""

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Run the SQL, if this is Postgres."""
        if schema_editor.connection.vendor == "postgresql":
            super().database_forwards(app_label, schema_editor, from_state, to_state)

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Run the reverse SQL, if this is Postgres."""
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


class TrigramSearch(TrigramExtension):
    """Install pg_trgm if it is missing, and let the rest of the migration find it.

    It may be in a schema that connections do not search. Until the transaction of the migration
    ends, they do. It is not dropped when the migration is undone: others may use it, and may have
    installed it. An operation that needs it comes after this one. An operation that needs it to be
    undone comes before.
    """

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Install pg_trgm, if this is Postgres."""
        super().database_forwards(app_label, schema_editor, from_state, to_state)
        self.database_backwards(app_label, schema_editor, from_state, to_state)

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Keep pg_trgm, and let the rest of the migration find it."""
        connection = schema_editor.connection
        if connection.vendor == "postgresql" and router.allow_migrate(connection.alias, app_label):
            schema_editor.execute(SEARCH_ITS_SCHEMA)
