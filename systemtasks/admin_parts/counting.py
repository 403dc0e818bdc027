"""Queries of large tables that do not read all rows."""

from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any
from uuid import UUID

from django.core.paginator import Paginator
from django.db import connections
from django.db.models import QuerySet

from systemtasks.ids import first_id
from systemtasks.models import TaskRun

COUNT_LIMIT = 10_000
VALUE_LIMIT = 100
LATELY = timedelta(days=3)
"""The time for which a filter offers the queues and the workers of the runs."""


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


def values_of_runs(column: str) -> list[str]:
    """Return the first VALUE_LIMIT values of a column of the runs, in order, without the empty one.

    They are those of the runs that were sent in the past LATELY, or of all runs if these have none.
    """
    first = first_id(datetime.now(UTC) - LATELY)
    return _distinct_values(column, first) or _distinct_values(column, UUID(int=0))


def _distinct_values(column: str, first: UUID) -> list[str]:
    """Return the values of the runs from the id `first` on.

    The query reads one index entry for each value (a "loose index scan", PostgreSQL wiki), but
    DISTINCT would read every row. The column must be the first one of an index. Partitions with
    earlier ids are neither planned nor read, which takes longer than all else if there are many.
    """
    connection = connections[TaskRun.objects.db]
    quote = connection.ops.quote_name
    table, name = quote(TaskRun._meta.db_table), quote(column)
    next_one = (
        f"SELECT {name} FROM {table} WHERE {name} > {{}} AND id >= '{first}' "  # noqa: S608
        f"ORDER BY {name} LIMIT 1"
    )
    query = (
        f"WITH RECURSIVE found(value) AS (({next_one.format('%s')}) UNION ALL "  # noqa: S608
        f"SELECT ({next_one.format('found.value')}) FROM found WHERE found.value IS NOT NULL) "
        f"SELECT value FROM found WHERE value IS NOT NULL LIMIT {VALUE_LIMIT}"
    )
    with connection.cursor() as cursor:
        cursor.execute(query, [""])
        return [value for (value,) in cursor.fetchall()]
