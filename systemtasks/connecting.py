"""Connect to Postgres for statements that go around Django's own cursors."""

from collections.abc import Sequence
from itertools import count
from typing import Any, NamedTuple

import psycopg
from django.db.backends.postgresql.base import DatabaseWrapper
from psycopg import pq
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.types.datetime import TimestamptzLoader

Row = tuple[Any, ...]


def connect(connection: Any) -> None:  # noqa: ANN401 - Django's, of any database
    """Open the connection if it is closed, and let a project's own backend prepare it.

    A backend may run a statement of its own whenever it makes a cursor: that of django-tenants sets
    the search_path there. Without it, a statement would run in the schema of an earlier request.
    """
    if type(connection) is DatabaseWrapper:
        connection.ensure_connection()
    else:
        connection.cursor().close()


def keeps_plans(connection: Any) -> bool:  # noqa: ANN401 - Django's
    """Return True if a statement may use a plan that is kept on this connection, which is open.

    psycopg and connection poolers drop plans without a word. psycopg does so at a rollback, if it
    has prepared a statement of its own. To use a dropped plan ends a transaction with an error, so
    none is used in one.
    """
    # With server-side binding, psycopg drops all plans at each rollback.
    bound = connection.features.uses_server_side_binding
    allowed = connection.connection.prepare_threshold is not None and not bound
    return allowed and connection.get_autocommit()


class _Query(NamedTuple):
    name: bytes
    query: bytes


class PreparedCursor:
    """A cursor for prepared SELECTs, as far as Django's wrapper of a cursor needs one.

    It calls libpq's PQexecPrepared, which psycopg offers as `pq.PGconn.exec_prepared`. Django logs
    the SQL from the private `_query`.
    """

    values: Sequence[str] = ()
    """The parameters of the next query."""

    keeps_plans = True
    """False if the next query is to be planned anew."""

    def __init__(self, connection: "psycopg.Connection[Row]", name: str):
        """Make a cursor whose statements are named `name` and a number."""
        self._pgconn = connection.pgconn
        self._name = name
        self._queries: dict[str, _Query] = {}
        self._numbers = count()
        self._query: _Query | None = None
        self._result: Any = None
        context = psycopg.Cursor(connection)
        # It gives the same times as Django's own loader, which is not written in C. With
        # USE_TZ=False it keeps the offset, which Django's own leaves out.
        context.adapters.register_loader("timestamptz", TimestamptzLoader)
        self._transformer = Transformer.from_context(context)

    def execute(self, sql: str) -> None:
        """Execute the query with `values`. Raise psycopg.Error."""
        if any("\0" in value for value in self.values):
            raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
        parameters = [value.encode() for value in self.values]
        if self.keeps_plans:
            self._query = self._queries.pop(sql, None) or self._prepare(sql)
            self._queries[sql] = self._query  # as the last one that was used
            result = self._pgconn.exec_prepared(self._query.name, parameters)
        else:
            self._query = _Query(b"", sql.encode())
            result = self._pgconn.exec_params(self._query.query, parameters)
        self._result = self._checked(result)

    def fetchall(self) -> list[Row]:
        """Return the rows of the last query."""
        self._transformer.set_pgresult(self._result)
        return self._transformer.load_rows(0, self._result.ntuples, tuple)

    def name_of(self, sql: str) -> str:
        """Return the name of a prepared statement, or "" if it is not prepared."""
        query = self._queries.get(sql)
        return query.name.decode() if query else ""

    def forget(self, most: int) -> None:
        """Drop the plans of the statements that were not used for longest, but for `most` ones."""
        for sql in list(self._queries)[: max(len(self._queries) - most, 0)]:
            # That it was dropped by somebody else is no error.
            self._pgconn.close_prepared(self._queries.pop(sql).name)

    def _prepare(self, sql: str) -> _Query:
        query = _Query(f"{self._name}_{next(self._numbers)}".encode(), sql.encode())
        self._checked(self._pgconn.prepare(query.name, query.query))
        return query

    def _checked(self, result: "pq.abc.PGresult") -> "pq.abc.PGresult":
        """Return the result, or raise its error."""
        if result.status in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
            return result
        error = error_from_result(result)
        if self._pgconn.status != pq.ConnStatus.OK:
            raise psycopg.OperationalError(str(error))
        raise error
