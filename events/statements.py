"""The SELECTs that every request needs: written by Django's ORM, but once a process."""

import threading
from collections.abc import Callable
from functools import cached_property
from typing import Any

import psycopg
from django.conf import settings
from django.db import InterfaceError, OperationalError, connections
from django.db.models import QuerySet, Value
from psycopg.types.datetime import TimestamptzLoader

Row = tuple[Any, ...]
_PARAMETER = object()


class _Cursors(threading.local):
    """A thread's cursors, one on each database, which are kept, since to make one takes long."""

    def __init__(self) -> None:
        self._by_alias: dict[str, psycopg.Cursor[Row]] = {}

    def of(self, alias: str, connection: "psycopg.Connection[Row]") -> "psycopg.Cursor[Row]":
        cursor = self._by_alias.get(alias)
        if cursor is None or cursor.connection is not connection:
            # Bound on the server, unlike Django's own cursor, so that Postgres can keep its plan.
            cursor = self._by_alias[alias] = psycopg.Cursor(connection)
            if settings.USE_TZ:
                # Django's own loader of times makes the same of them, but not in C.
                cursor.adapters.register_loader("timestamptz", TimestamptzLoader)
        return cursor


_cursors = _Cursors()


class Statement:
    """A SELECT with one parameter.

    `rows` makes its queryset, a `values_list()`, from an expression that stands for the parameter.
    To write the SQL takes Django longer than its answer takes Postgres, so that is done once.
    """

    def __init__(self, rows: Callable[[Value], "QuerySet[Any, Any]"]) -> None:
        self._rows = rows

    @cached_property
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
            return self._ask(connection, value)
        except (InterfaceError, OperationalError):
            if not kept or connection.is_usable():
                raise
        connection.close()
        return self._ask(connection, value)

    def _ask(self, connection: Any, value: object) -> list[Row]:  # noqa: ANN401 - Django's wrapper
        sql, parameters, converters = self._compiled
        given = [value if parameter is _PARAMETER else parameter for parameter in parameters]
        connection.ensure_connection()
        cursor = connection._prepare_cursor(_cursors.of(self.alias, connection.connection))
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
