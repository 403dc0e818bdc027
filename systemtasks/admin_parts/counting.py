"""Queries of large tables that do not read all rows."""

from functools import cached_property
from typing import Any

from django.core.paginator import Paginator
from django.db import connections
from django.db.models import Model, QuerySet

COUNT_LIMIT = 10_000
VALUE_LIMIT = 100


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """Paginates the first COUNT_LIMIT rows. Later ones are neither counted nor shown."""

    @cached_property
    def count(self) -> int:
        return min(self._counted, COUNT_LIMIT)

    @property
    def is_cut(self) -> bool:
        """Return True if there are rows after the last page."""
        return self._counted > COUNT_LIMIT

    @cached_property
    def _counted(self) -> int:
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]
        return rows.order_by().values("pk")[: COUNT_LIMIT + 1].count()


def distinct_values(model: type[Model], column: str) -> list[str]:
    """Return the first VALUE_LIMIT values of a column, in order, without the empty one.

    The query reads one index entry for each value (a "loose index scan", PostgreSQL wiki), but
    DISTINCT would read every row. The column must be the first one of an index.
    """
    connection = connections[model.objects.db]  # type: ignore[attr-defined]
    quote = connection.ops.quote_name
    table, name = quote(model._meta.db_table), quote(column)
    next_one = f"SELECT {name} FROM {table} WHERE {name} > {{}} ORDER BY {name} LIMIT 1"  # noqa: S608
    query = (
        f"WITH RECURSIVE found(value) AS (({next_one.format('%s')}) UNION ALL "  # noqa: S608
        f"SELECT ({next_one.format('found.value')}) FROM found WHERE found.value IS NOT NULL) "
        f"SELECT value FROM found WHERE value IS NOT NULL LIMIT {VALUE_LIMIT}"
    )
    with connection.cursor() as cursor:
        cursor.execute(query, [""])
        return [value for (value,) in cursor.fetchall()]
