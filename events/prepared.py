"""SELECTs that Django's ORM compiles once a process, and Postgres plans once a connection.

A GET of one task makes two of them: for the token and for the task. In one process, on a busy
machine, the two took these microseconds of processor time (medians of 25 alternating rounds):

    libpq's own calls, as here          130
    psycopg's cursors                   241
    psycopg's cursors in a pipeline     276

In the serving benchmark, on a quiet machine, the service answered such a GET 2.7 times as often as
the conventional stack with kept connections, and 12.1 times as often as with its defaults. What is
asked for is 3 and 12. With psycopg's cursors it was 2.6 and 11.8, when less was checked for each
request. See docs/api.md for where the rest goes.

Under load, by processor time, Django's own cursor reached 2.4 to 2.8 with server-side binding and
1.5 without it, and plain querysets 0.8.

The module uses private parts of Django: a query's compiler, and the wrapper of a cursor.
tests/events/test_prepared.py fails if they change.
"""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

from django.db import Error, connections
from django.db.models import QuerySet, Value
from psycopg.errors import FeatureNotSupported, InvalidSqlStatementName
from psycopg.sql import Literal

from systemtasks.connecting import PreparedCursor, Row, connect, keeps_plans

_PARAMETER = object()

_OUTDATED = (FeatureNotSupported, InvalidSqlStatementName)
"""Raised for a plan whose columns a migration has changed, or which was dropped."""


def prepared(rows: Callable[[Value], "QuerySet[Any, Any]"]) -> Callable[[str], list[Row]]:
    """Decorate a function that makes a queryset, so that it fetches the rows instead.

    `rows` is called with an expression that stands for a value. It returns a `values_list()` that
    uses it. The decorated function takes the value itself, a string, and returns the rows. Django
    compiles the SQL once a process. Postgres keeps the plan as long as the connection, provided
    that the connection's `prepare_threshold` is a number. In a transaction, it plans anew.

    A kept connection that has died, or whose plan is outdated, is replaced without an error, unless
    it is in a transaction. The decorated function raises Django's DatabaseError or InterfaceError.
    """

    @cache
    def queryset() -> "QuerySet[Any, Any]":
        return rows(Value(_PARAMETER))

    def compiler() -> Any:  # noqa: ANN401 - Django's SQLCompiler, for this thread's connection
        return queryset().query.get_compiler(using=queryset().db)

    @cache
    def compiled() -> tuple[str, dict[int, Any]]:
        """Return the SQL, with $1 for the value, and Django's converters by a column's index."""
        once = compiler()
        text, parameters = once.as_sql()
        begin, *parts = (part.replace("%%", "%") for part in text.split("%s"))
        for given, part in zip(parameters, parts, strict=True):
            begin += "$1" if given is _PARAMETER else Literal(given).as_string()
            begin += part
        return begin, once.get_converters([column for column, *_ in once.select])

    def execute(connection: Any, value: str) -> list[Row]:  # noqa: ANN401 - Django's
        sql, converters = compiled()
        connect(connection)
        cursor = _cursor(connection.connection)
        cursor.keeps_plans = keeps_plans(connection)
        # Not passed as a parameter: Django's log of queries would look for its place in the SQL.
        cursor.values = (value,)
        connection._prepare_cursor(cursor).execute(sql)
        fetched = cursor.fetchall()
        if converters:
            fetched = [tuple(row) for row in compiler().apply_converters(fetched, converters)]
        return fetched

    @wraps(rows)
    def fetch(value: str) -> list[Row]:
        connection: Any = connections[queryset().db]
        is_kept = connection.connection is not None
        try:
            return execute(connection, value)
        except Error as error:
            replaceable = is_kept and connection.get_autocommit()
            outdated = isinstance(error.__cause__, _OUTDATED)
            if not replaceable or not (outdated or not connection.is_usable()):
                raise
        connection.close()
        return execute(connection, value)

    read: Callable[[str], list[Row]] = fetch
    return read


def _cursor(connection: Any) -> PreparedCursor:  # noqa: ANN401 - psycopg's
    """Return the connection's cursor for prepared statements, which is made once.

    A new one would look up the loader of each type again.
    """
    cursor: PreparedCursor | None = getattr(connection, "events_cursor", None)
    if cursor is None:
        cursor = connection.events_cursor = PreparedCursor(connection, "events")
    return cursor
