"""Django's backend for Postgres, with connections that search the service's schema first.

They are named after their process, and those that answer requests have a limit for each statement.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from django.conf import settings
from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.postgresql import base
from psycopg import OperationalError
from psycopg.sql import SQL, Identifier

from config.postgres import SERVICE, SHARED
from systemtasks.storage.connection import process_name

logger = logging.getLogger(__name__)

SELECT_SESSION = """
SELECT current_schemas(false)::text[],
    ARRAY(SELECT tablename::text FROM pg_tables WHERE schemaname = %s),
    current_setting('statement_timeout') <> '0'
"""
NOT_MIGRATED = "The schema {schema} lacks tables of this service: run `manage.py migrate` first."
NO_SCHEMA = "The database's role has no schema to look into but {schema}, which is the service's."
NOT_TAKEN = (
    "The database does not look into the schemas {path}: its role may not use one of them, or a "
    "connection pooler hands no search_path on. Behind a pooler, the service needs a role of its "
    "own, and ALTER ROLE … SET search_path = {path}"
)

UNLIMITED = (
    "Statements of requests have no limit: a connection pooler hands no statement_timeout on. Give "
    "the role of the web server one: ALTER ROLE … SET statement_timeout = '%ds'"
)

Connection = Any  # psycopg's


class Session(NamedTuple):
    """The state of a new connection."""

    schemas: list[str]
    """The schemas that it searches."""
    tables: list[str]
    """The tables in the service's schema."""
    is_limited: bool
    """True if Postgres cancels statements that take too long."""


class SearchPath(NamedTuple):
    """The options with which a connection searches the right schemas."""

    schemas: list[str]
    options: str
    """The `options` that a connection has already."""
    added: str
    """The option to add to them so that these schemas are searched, or an empty text."""


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection that finds the service's tables in their schema, and all others as usual.

    The search path is a startup parameter of the connection. It is never set later: behind a pooler
    in transaction mode, other clients would inherit it.
    """

    _search_paths: ClassVar[dict[tuple[object, ...], SearchPath]] = {}
    _is_warned: ClassVar = False

    statement_seconds = 0
    """The limit of each statement of the next connections, or 0 for none."""

    def get_connection_params(self) -> dict[str, Any]:
        """Return psycopg's parameters. Add a name for the connection if they have none."""
        named: dict[str, Any] = {"fallback_application_name": process_name()}
        return named | super().get_connection_params()

    def get_new_connection(self, conn_params: dict[str, Any]) -> Connection:
        """Return a connection that searches the right schemas.

        Raise psycopg's OperationalError if that fails, or if a table of the service is missing: a
        project may have a table of the same name, which would be used instead.
        """
        if self.alias == NO_DB_ALIAS:
            return super().get_new_connection(conn_params)
        path = self._search_path(conn_params)
        limit = f"-c statement_timeout={self.statement_seconds}s" if self.statement_seconds else ""
        connection = self._connect(conn_params, path, limit)
        session = _session(connection)
        if session.schemas != path.schemas:
            connection.close()
            raise _not_taken(path.schemas)
        if limit and not session.is_limited and not DatabaseWrapper._is_warned:
            DatabaseWrapper._is_warned = True
            logger.warning(UNLIMITED, self.statement_seconds)
        return connection

    def _connect(self, conn_params: dict[str, Any], path: SearchPath, limit: str) -> Connection:
        """Return a connection with the options for the search path and, if possible, for the limit.

        Raise psycopg's OperationalError.
        """
        added = [option for option in (path.added, limit) if option]
        options = {"options": " ".join([path.options, *added]).strip()} if added else {}
        try:
            return super().get_new_connection({**conn_params, **options})
        except OperationalError as error:
            if "startup parameter" not in str(error):  # PgBouncer's refusal of `options`
                raise
            if path.added:
                raise _not_taken(path.schemas) from error
        return super().get_new_connection(conn_params)

    def _search_path(self, conn_params: Mapping[str, Any]) -> SearchPath:
        """Return the search path for these parameters, determined once in each process.

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
        usual, tables, _ = _session(connection)
        schemas = self._schemas(usual, tables)
        added = "" if schemas == usual else f"-c search_path={_escaped(_joined(schemas))}"
        return SearchPath(schemas, connection.info.get_parameters().get("options", ""), added)

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


def _session(connection: Connection) -> Session:
    """Return the state of the connection. It is in autocommit mode from then on."""
    connection.autocommit = True
    return Session(*connection.execute(SELECT_SESSION, [settings.SERVICE_SCHEMA]).fetchone())


def _not_taken(schemas: Sequence[str]) -> OperationalError:
    return OperationalError(NOT_TAKEN.format(path=_joined(schemas)))


def _joined(schemas: Sequence[str]) -> str:
    """Return the schemas as the value of `search_path`."""
    return SQL(",").join(map(Identifier, schemas)).as_string()


def _escaped(text: str) -> str:
    """Return the text as one word of `options`."""
    return text.replace("\\", r"\\").replace(" ", r"\ ")
