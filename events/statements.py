"""The SELECTs that every request needs: written by Django's ORM, but once a process."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import psycopg
from django.db import InterfaceError, OperationalError, connections
from django.db.models import QuerySet, Value

Row = tuple[Any, ...]
_PARAMETER = object()


class Statement:
    """A SELECT with one parameter.

    `rows` makes its queryset, a `values_list()`, from an expression that stands for the parameter.
    To write the SQL takes Django longer than its answer takes Postgres, so that is done once.
    """

    def __init__(self, rows: Callable[[Value], "QuerySet[Any, Any]"]) -> None:
        self._rows = rows

    @property
    def alias(self) -> str:
        """The database that is asked, by its alias."""
        return self._queryset.db

    def fetch(self, value: object) -> list[Row]:
        """All rows for this value of the parameter; raises DatabaseError."""
        connection: Any = connections[self.alias]
        # A kept connection may have died since. The statement itself shows it, so that no
        # `SELECT 1` of CONN_HEALTH_CHECKS needs to go before it.
        kept = connection.connection is not None and not connection.in_atomic_block
        connection.health_check_done = True
        try:
            return self._ask(value)
        except (InterfaceError, OperationalError):
            if not kept or connection.is_usable():
                raise
        connection.close()
        return self._ask(value)

    def _ask(self, value: object) -> list[Row]:
        sql, parameters, converters = self._compiled
        given = [value if parameter is _PARAMETER else parameter for parameter in parameters]
        connection: Any = connections[self.alias]
        connection.ensure_connection()
        # Bound on the server, unlike Django's own cursor, so that Postgres can keep its plan.
        bound = psycopg.Cursor(connection.connection)
        with connection._prepare_cursor(bound) as cursor:
            cursor.execute(sql, given)
            rows: list[Row] = cursor.fetchall()
        if converters:
            rows = [tuple(row) for row in self._compiler.apply_converters(rows, converters)]
        return rows

    @cached_property
    def _queryset(self) -> "QuerySet[Any, Any]":
        return self._rows(Value(_PARAMETER))

    @cached_property
    def _compiler(self) -> Any:  # noqa: ANN401 - Django's SQLCompiler
        return self._queryset.query.get_compiler(using=self.alias)

    @cached_property
    def _compiled(self) -> tuple[str, Row, dict[int, Any]]:
        sql, parameters = self._compiler.as_sql()
        columns = [column for column, *_ in self._compiler.select]
        return sql, parameters, self._compiler.get_converters(columns)
