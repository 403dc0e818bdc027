"""The SELECTs that every request needs, written by Django's ORM once, and planned by Postgres once.

A GET of one task reads a token's row and the task's row by them. The serving benchmark's answers to
it a second, as a multiple of the conventional stack's with kept connections and with its defaults
(medians of 15 alternating rounds on a busy machine; in brackets by processor time):

    this module             3.9 and 18  (3.2 and 14)
    libpq's own call        4.6 and 22  (3.8 and 17)

By processor time, in other runs of the same, Django's own cursor came to 2.4 to 2.8 with bindings
on the server and to 1.5 without them, and querysets to 0.8. The bounds are 3 and 12.

It leans on what is private in Django: a query's compiler, the wrapper of a cursor, and the `_query`
in which the log of queries looks for a text. tests/events/test_prepared.py fails if that changes.
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
"""Of a plan whose columns a migration has changed, or that somebody else has dropped."""


def prepared(rows: Callable[[Value], "QuerySet[Any, Any]"]) -> Callable[[str], list[Row]]:
    """Return a function that fetches rows by one value.

    `rows` makes their queryset, a `values_list()`, from an expression that stands for the value.
    Django writes its SQL once in the life of the process. Postgres keeps the plan as long as the
    connection, where the connection's `prepare_threshold` is a number.

    A kept connection that has died, or whose plan is outdated, is replaced without an error, unless
    it is in a transaction. The function raises Django's DatabaseError or InterfaceError.
    """

    @cache
    def queryset() -> "QuerySet[Any, Any]":
        return rows(Value(_PARAMETER))

    def compiler() -> Any:  # noqa: ANN401 - Django's SQLCompiler, for this thread's connection
        return queryset().query.get_compiler(using=queryset().db)

    @cache
    def written() -> tuple[str, Row, dict[int, Any]]:
        """Return the SQL, its parameters, and by a column's index Django's converters of it."""
        writer = compiler()
        sql, parameters = writer.as_sql()
        return sql, parameters, writer.get_converters([column for column, *_ in writer.select])

    def ask(connection: Any, value: str) -> list[Row]:  # noqa: ANN401 - Django's
        sql, parameters, converters = written()
        connection.ensure_connection()
        cursor = _cursor(connection.connection)
        given = [value if each is _PARAMETER else each for each in parameters]
        connection._prepare_cursor(cursor).execute(sql, given)
        found = cursor.fetchall()
        if converters:
            found = [tuple(row) for row in compiler().apply_converters(found, converters)]
        return found

    @wraps(rows)
    def fetch(value: str) -> list[Row]:
        connection: Any = connections[queryset().db]
        replaceable = connection.connection is not None and connection.get_autocommit()
        try:
            return ask(connection, value)
        except Error as error:
            outdated = isinstance(error.__cause__, _OUTDATED)
            if not replaceable or not (outdated or not connection.is_usable()):
                raise
        connection.close()
        return ask(connection, value)

    read: Callable[[str], list[Row]] = fetch
    return read


class _Cursor(psycopg.Cursor[Row]):
    """Psycopg's own, which binds parameters on the server.

    Django's puts them into the text, so that each text is another one to Postgres.
    """

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:  # noqa: ANN401
        """Do as psycopg's own, and leave the text where Django's log of queries looks for it."""
        super().execute(query, params, **options)
        self._query: Any = _Text(query.encode())
        return self


class _Text(NamedTuple):
    query: bytes


def _cursor(connection: Any) -> _Cursor:  # noqa: ANN401 - psycopg's
    """Return the connection's one cursor for these.

    It is kept with the connection, since a new one begins by looking up how each type is read.
    """
    cursor: _Cursor | None = getattr(connection, "events_cursor", None)
    if cursor is None:
        cursor = connection.events_cursor = _Cursor(connection)
        if settings.USE_TZ:
            # Django's own loader of times makes the same of them, but not in C.
            cursor.adapters.register_loader("timestamptz", TimestamptzLoader)
    return cursor
