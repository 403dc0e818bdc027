"""Operations of migrations that only run on Postgres.

On any other database the migrations create nothing: a project's tests may run on SQLite, and record
nothing there. The models' `required_db_vendor` has the same effect.
"""

from typing import Any

from django.contrib.postgres.operations import NotInTransactionMixin, TrigramExtension
from django.db import router
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations import AddIndex, CreateModel, RunSQL
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


PARTITIONS_WITHOUT_INDEX = """
SELECT partition.oid::regclass::text, partition.relname FROM pg_inherits
JOIN pg_class AS partition ON partition.oid = inhrelid
WHERE inhparent = %s::regclass AND NOT EXISTS (
    SELECT FROM pg_inherits AS own JOIN pg_index ON indexrelid = own.inhrelid
    WHERE own.inhparent = to_regclass(%s) AND indrelid = partition.oid
) ORDER BY 2
"""


class AddIndexToPartitions(NotInTransactionMixin, AddIndex):
    """Create an index of a partitioned table while others read and write.

    Postgres creates no index of a partitioned table CONCURRENTLY. So it is created for the table
    alone, then CONCURRENTLY for each partition, and attached. It is valid with the last one. If
    this is interrupted, it can be run again.

    The migration must be `atomic = False`. The locks on the table are waited for up to a second.
    """

    atomic = False

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Create the index."""
        self._ensure_not_in_transaction(schema_editor)
        model = to_state.apps.get_model(app_label, self.model_name)
        if not self.allow_migrate_model(schema_editor.connection.alias, model):
            return
        quote = schema_editor.quote_name
        name = quote(self.index.name)
        table = quote(model._meta.db_table)
        whole = str(self.index.create_sql(model, schema_editor))
        columns = whole.removeprefix(f"CREATE INDEX {name} ON {table}")
        schema_editor.execute("SET lock_timeout = '1s'")
        schema_editor.execute(f"CREATE INDEX IF NOT EXISTS {name} ON ONLY {table}{columns}")
        with schema_editor.connection.cursor() as cursor:
            cursor.execute(PARTITIONS_WITHOUT_INDEX, [model._meta.db_table, name])
            partitions = cursor.fetchall()
        for partition, relation in partitions:
            own = quote(f"{relation}_{self.index.name}")
            schema_editor.execute("SET lock_timeout = 0")  # CONCURRENTLY waits, and blocks nobody
            schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {own}")
            schema_editor.execute(f"CREATE INDEX CONCURRENTLY {own} ON {partition}{columns}")
            schema_editor.execute("SET lock_timeout = '1s'")
            schema_editor.execute(f"ALTER INDEX {name} ATTACH PARTITION {own}")
        schema_editor.execute("RESET lock_timeout")


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
