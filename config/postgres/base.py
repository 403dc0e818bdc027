"""Django's backend for Postgres, with connections that search the service's schema first."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from django.conf import settings
from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.postgresql import base
from psycopg import OperationalError
from psycopg.sql import SQL, Identifier

from config.postgres import SERVICE, SHARED

SELECT_SCHEMAS_AND_TABLES = """
SELECT current_schemas(false)::text[],
    ARRAY(SELECT tablename::text FROM pg_tables WHERE schemaname = %s)
"""
NOT_MIGRATED = "The schema {schema} lacks tables of this service: run `manage.py migrate` first."
NO_SCHEMA = "The database's role has no schema to look into but {schema}, which is the service's."
NOT_TAKEN = (
    "The database does not look into the schemas {path}: its role may not use one of them, or a "
    "connection pooler hands no search_path on. Behind a pooler, the service needs a role of its "
    "own, and ALTER ROLE … SET search_path = {path}"
)

Connection = Any  # psycopg's
SearchPath = tuple[list[str], str | None]
"""The schemas that a connection must search, and the `options` that it needs to do so, if any."""


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection that finds the service's tables in their schema, and all others as usual.

    The search path is a startup parameter of the connection. It is never set later: behind a pooler
    in transaction mode, other clients would inherit it.
    """

    _search_paths: ClassVar[dict[tuple[object, ...], SearchPath]] = {}

    def get_new_connection(self, conn_params: dict[str, Any]) -> Connection:
        """Return a connection that searches the right schemas.

        Raises psycopg's OperationalError if there can be none. A missing table of the service is
        such an error: a project may have a table of the same name, which would be used instead.
        """
        if self.alias == NO_DB_ALIAS:
            return super().get_new_connection(conn_params)
        schemas, options = self._search_path(conn_params)
        if options is not None:
            conn_params = {**conn_params, "options": options}
        try:
            connection: Connection = super().get_new_connection(conn_params)
        except OperationalError as error:
            if "startup parameter" in str(error):  # PgBouncer's refusal of `options`
                raise _not_taken(schemas) from error
            raise
        if _schemas_and_tables(connection)[0] != schemas:
            connection.close()
            raise _not_taken(schemas)
        return connection

    def _search_path(self, conn_params: Mapping[str, Any]) -> SearchPath:
        """Return the search path for these parameters, which is determined once a process.

        It depends on the database, on the role, and on `options`, which libpq may take from the
        environment.
        """
        names = ("host", "port", "dbname", "user", "options")
        key = (self.alias, *(conn_params.get(name) for name in names))
        if key not in self._search_paths:
            connection = super().get_new_connection(dict(conn_params))
            try:
                self._search_paths[key] = self._find_search_path(connection)
            finally:
                connection.close()
        return self._search_paths[key]

    def _find_search_path(self, connection: Connection) -> SearchPath:
        usual, tables = _schemas_and_tables(connection)
        schemas = self._schemas(usual, tables)
        if schemas == usual:
            return schemas, None
        options = connection.info.get_parameters().get("options", "")
        return schemas, f"{options} -c search_path={_escaped(_joined(schemas))}".lstrip()

    def _schemas(self, usual: Sequence[str], tables: Sequence[str]) -> list[str]:
        """Return the schemas to search.

        `usual` are those that the database searches by default, `tables` the tables in the
        service's schema.
        """
        own = settings.SERVICE_SCHEMA
        shared = [schema for schema in usual if schema != own]
        if self.alias == SERVICE:
            return [own]
        if self.alias == SHARED:
            if not shared:
                raise OperationalError(NO_SCHEMA.format(schema=own))
            return shared
        if not self._own_tables() <= set(tables):
            raise OperationalError(NOT_MIGRATED.format(schema=own))
        return [own, *shared]

    def _own_tables(self) -> set[str]:
        own = DatabaseWrapper(self.settings_dict, SERVICE)
        return {*own.introspection.django_table_names(), "django_migrations"}


def _schemas_and_tables(connection: Connection) -> tuple[list[str], list[str]]:
    """Return the schemas that the connection searches, and the tables in the service's schema."""
    connection.autocommit = True
    row: tuple[list[str], list[str]] = connection.execute(
        SELECT_SCHEMAS_AND_TABLES, [settings.SERVICE_SCHEMA]
    ).fetchone()
    return row


def _not_taken(schemas: Sequence[str]) -> OperationalError:
    return OperationalError(NOT_TAKEN.format(path=_joined(schemas)))


def _joined(schemas: Sequence[str]) -> str:
    """Return the schemas as the value of `search_path`."""
    return SQL(",").join(map(Identifier, schemas)).as_string()


def _escaped(text: str) -> str:
    """Return the text as one word of `options`."""
    return text.replace("\\", r"\\").replace(" ", r"\ ")
