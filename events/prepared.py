"""SELECTs that Django's ORM compiles once a process, and Postgres plans once a connection.

A GET of one task makes two of them: for the token and for the task. In the serving benchmark, it is
answered this many times as often as by the conventional stack, with kept connections and with its
defaults (medians of 15 alternating rounds on a busy machine; in brackets by processor time):

    this module             3.9 and 18  (3.2 and 14)
    libpq's own call        4.6 and 22  (3.8 and 17)

In other runs, by processor time, Django's own cursor reached 2.4 to 2.8 with server-side binding
and 1.5 without it, and plain querysets 0.8. What is required is 3 and 12.

The module uses private parts of Django: a query's compiler, the wrapper of a cursor, and the
`_query` from which Django logs the SQL. tests/events/test_prepared.py fails if they change.
"""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, NamedTuple, Self

import psycopg
from django.conf import settings
from django.db import Error, connections
from django.db.models import QuerySet, Value
from psycopg.errors import FeatureNotSupported, InvalidSqlStatementName
from psycopg.types.datetime import TimestamptzLoader

Row = tuple[Any, ...]

_PARAMETER = object()

_OUTDATED = (FeatureNotSupported, InvalidSqlStatementName)
"""Raised for a plan whose columns a migration has changed, or which was dropped."""


def prepared(rows: Callable[[Value], "QuerySet[Any, Any]"]) -> Callable[[str], list[Row]]:
    """Decorate a function that makes a queryset, so that it fetches the rows instead.

    `rows` gets an expression that stands for a value, and returns a `values_list()` that uses it.
    The decorated function takes the value itself, a string, and returns the rows. Django compiles
    the SQL once a process. Postgres keeps the plan as long as the connection, provided that the
    connection's `prepare_threshold` is a number.

    A kept connection that has died, or whose plan is outdated, is replaced without an error, unless
    it is in a transaction. The decorated function raises Django's DatabaseError or InterfaceError.
    """

    @cache
    def queryset() -> "QuerySet[Any, Any]":
        return rows(Value(_PARAMETER))

    def compiler() -> Any:  # noqa: ANN401 - Django's SQLCompiler, for this thread's connection
        return queryset().query.get_compiler(using=queryset().db)

    @cache
    def compiled() -> tuple[str, Row, dict[int, Any]]:
        """Return the SQL, its parameters, and Django's converters by the index of a column."""
        once = compiler()
        sql, parameters = once.as_sql()
        return sql, parameters, once.get_converters([column for column, *_ in once.select])

    def execute(connection: Any, value: str) -> list[Row]:  # noqa: ANN401 - Django's
        sql, parameters, converters = compiled()
        connection.ensure_connection()
        cursor = _cursor(connection.connection)
        values = [value if each is _PARAMETER else each for each in parameters]
        connection._prepare_cursor(cursor).execute(sql, values)
        fetched = cursor.fetchall()
        if converters:
            fetched = [tuple(row) for row in compiler().apply_converters(fetched, converters)]
        return fetched

    @wraps(rows)
    def fetch(value: str) -> list[Row]:
        connection: Any = connections[queryset().db]
        replaceable = connection.connection is not None and connection.get_autocommit()
        try:
            return execute(connection, value)
        except Error as error:
            outdated = isinstance(error.__cause__, _OUTDATED)
            if not replaceable or not (outdated or not connection.is_usable()):
                raise
        connection.close()
        return execute(connection, value)

    read: Callable[[str], list[Row]] = fetch
    return read


class _Cursor(psycopg.Cursor[Row]):
    """Psycopg's own cursor, which sends parameters apart from the SQL.

    Django's cursor writes them into the SQL, so that Postgres would plan again for each value.
    """

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:  # noqa: ANN401
        """Execute as psycopg does, and keep the SQL where Django's log of queries looks for it."""
        super().execute(query, params, **options)
        self._query: Any = _Text(query.encode())
        return self


class _Text(NamedTuple):
    query: bytes


def _cursor(connection: Any) -> _Cursor:  # noqa: ANN401 - psycopg's
    """Return the connection's cursor for prepared statements, which is made once.

    A new cursor would look up the loader of each type again.
    """
    cursor: _Cursor | None = getattr(connection, "events_cursor", None)
    if cursor is None:
        cursor = connection.events_cursor = _Cursor(connection)
        if settings.USE_TZ:
            # It gives the same times as Django's own loader, which is not written in C.
            cursor.adapters.register_loader("timestamptz", TimestamptzLoader)
    return cursor
