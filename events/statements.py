"""The SELECTs that every request needs: written by Django's ORM, but once a process.

They are asked by libpq's own call, PQexecPrepared, since psycopg's cursors cost twice as much.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

import psycopg
from django.conf import settings
from django.db import InterfaceError, OperationalError, connections
from django.db.models import QuerySet, Value
from psycopg import pq, sql
from psycopg.adapt import Transformer
from psycopg.errors import FeatureNotSupported, InvalidSqlStatementName, error_from_result
from psycopg.types.datetime import TimestamptzLoader

Row = tuple[Any, ...]
Converters = dict[int, Any]
"""What Django makes of a column's value that psycopg does not, by the column's position."""
_PARAMETER = object()


class Statement:
    """A SELECT with one parameter.

    `rows` makes its queryset, a `values_list()`, from an expression that stands for the parameter.
    To write the SQL takes Django longer than its answer takes Postgres, so that is done once.
    """

    def __init__(self, rows: Callable[[Value], "QuerySet[Any, Any]"]) -> None:
        self._rows = rows

    def beside(self, other: "Statement") -> "Statement":
        """Both in one, for two parameters: each row of this one goes on with the other's row.

        Where the other has none, it goes on with None in each of its columns.
        """
        return _Joined(self, other)

    @cached_property
    def alias(self) -> str:
        """The database that is asked, by its alias."""
        return self._queryset.db

    @cached_property
    def width(self) -> int:
        """How many columns a row has."""
        return len(self._compiled[0])

    def fetch(self, *values: str) -> list[Row]:
        """All rows for this value of the parameter; raises DatabaseError."""
        connection: Any = connections[self.alias]
        # A kept connection may have died since. The statement itself shows it, so that no
        # `SELECT 1` of CONN_HEALTH_CHECKS needs to go before it.
        kept = connection.connection is not None and not connection.in_atomic_block
        connection.health_check_done = True
        try:
            return self._ask(connection, values)
        except (InterfaceError, OperationalError):
            if not kept or connection.is_usable():
                raise
        connection.close()
        return self._ask(connection, values)

    def _ask(self, connection: Any, values: tuple[str, ...]) -> list[Row]:  # noqa: ANN401 - Django's
        if connection.connection is None:
            connection.ensure_connection()
        cursor = _cursor_of(connection)
        # Not as its parameters: Django's log of queries would look for them in the SQL.
        cursor.values = values
        connection._prepare_cursor(cursor).execute(self._sql)
        rows = cursor.fetchall()
        if self._converters:
            converted = self._compiler().apply_converters(rows, self._converters)
            rows = [tuple(row) for row in converted]
        return rows

    @cached_property
    def _sql(self) -> str:
        return self._numbered(1)

    @cached_property
    def _converters(self) -> Converters:
        columns, *_ = self._compiled
        converters: Converters = self._compiler().get_converters(columns)
        return converters

    def _numbered(self, number: int) -> str:
        """The SQL with its constants in it, and the parameter by this number."""
        _, text, parameters = self._compiled
        begin, *parts = (part.replace("%%", "%") for part in text.split("%s"))
        for given, part in zip(parameters, parts, strict=True):
            it = f"${number}" if given is _PARAMETER else sql.Literal(given).as_string()
            begin += it + part
        return begin

    @cached_property
    def _queryset(self) -> "QuerySet[Any, Any]":
        return self._rows(Value(_PARAMETER))

    def _compiler(self) -> Any:  # noqa: ANN401 - Django's SQLCompiler, for this thread's connection
        return self._queryset.query.get_compiler(using=self.alias)

    @cached_property
    def _compiled(self) -> tuple[list[Any], str, Row]:
        """The columns, and the SQL with its parameters, as Django has them."""
        compiler = self._compiler()
        text, parameters = compiler.as_sql()
        return [column for column, *_ in compiler.select], text, parameters


class _Joined(Statement):
    """Two statements in one."""

    def __init__(self, first: Statement, second: Statement) -> None:
        super().__init__(first._rows)
        self._parts = first, second

    def fetch(self, *values: str) -> list[Row]:
        """All rows for these values; two statements where they ask two databases."""
        first, second = self._parts
        if first.alias == second.alias:
            return super().fetch(*values)
        rows, others = first.fetch(values[0]), second.fetch(values[1])
        return [row + other for row in rows for other in others or [(None,) * second.width]]

    @cached_property
    def _sql(self) -> str:
        first, second = (part._numbered(number) for number, part in enumerate(self._parts, 1))
        return f"SELECT * FROM ({first}) a LEFT JOIN ({second}) b ON true"  # noqa: S608

    @cached_property
    def _converters(self) -> Converters:
        first, second = self._parts
        later = {first.width + column: each for column, each in second._converters.items()}
        return {**first._converters, **later}


@dataclass(frozen=True, slots=True)
class _Prepared:
    name: bytes
    query: bytes


class _Cursor:
    """As much of a cursor as Django's wrapper of one needs for a prepared SELECT."""

    def __init__(self, connection: "psycopg.Connection[Row]", *, by_name: bool) -> None:
        self.values: Sequence[str] = ()
        """The parameters of the next statement."""
        self._pgconn = connection.pgconn
        self._by_name = by_name
        self._prepared: dict[str, _Prepared] = {}
        self._numbers = count()
        self._query: _Prepared | None = None  # as psycopg's, for Django's log of queries
        self._result: Any = None
        context = psycopg.Cursor(connection)
        if settings.USE_TZ:
            # Django's own loader of times makes the same of them, but not in C.
            context.adapters.register_loader("timestamptz", TimestamptzLoader)
        self._reader = Transformer.from_context(context)

    def execute(self, text: str) -> None:
        """Ask for `values`; raises psycopg.Error."""
        if "\0" in "".join(self.values):
            raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
        try:
            self._ask(text)
        except (FeatureNotSupported, InvalidSqlStatementName):
            # A migration has changed the type of what it selects, or somebody the connection.
            self._prepared.clear()
            if self._pgconn.transaction_status != pq.TransactionStatus.IDLE:
                raise
            self._ask(text)

    def fetchall(self) -> list[Row]:
        """Every row of the answer."""
        self._reader.set_pgresult(self._result)
        return self._reader.load_rows(0, self._result.ntuples, tuple)

    def _ask(self, text: str) -> None:
        parameters = list(map(str.encode, self.values))
        self._query = query = self._prepared.get(text) or self._prepare(text)
        if self._by_name:
            self._result = self._check(self._pgconn.exec_prepared(query.name, parameters))
        else:
            self._result = self._check(self._pgconn.exec_params(query.query, parameters))

    def _prepare(self, text: str) -> _Prepared:
        made = _Prepared(b"events_%d" % next(self._numbers), text.encode())
        if self._by_name:
            self._check(self._pgconn.prepare(made.name, made.query))
        self._prepared[text] = made
        return made

    def _check(self, result: Any) -> Any:  # noqa: ANN401 - a PGresult
        """The result, unless it is an error, which this raises."""
        if result.status in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
            return result
        error = error_from_result(result)
        if self._pgconn.status != pq.ConnStatus.OK:
            raise psycopg.OperationalError(str(error))
        raise error


def _cursor_of(wrapper: Any) -> _Cursor:  # noqa: ANN401 - Django's connection
    """The cursor of psycopg's connection, which lives as long as what it has prepared there."""
    connection = wrapper.connection
    cursor: _Cursor | None = getattr(connection, "events_cursor", None)
    if cursor is None:
        # With server-side binding, psycopg forgets every statement at each rollback.
        bound = wrapper.features.uses_server_side_binding
        by_name = connection.prepare_threshold is not None and not bound
        cursor = connection.events_cursor = _Cursor(connection, by_name=by_name)
    return cursor
