"""Queries of large tables that do not read all rows."""

from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any
from uuid import UUID

from django.core.paginator import Page, Paginator
from django.db import connections
from django.db.models import QuerySet

from systemtasks.ids import first_id
from systemtasks.models import TaskRun
from systemtasks.page_keys import Found, find

COUNT_LIMIT = 10_000
VALUE_LIMIT = 100
LATELY = timedelta(days=3)
"""The time for which a filter offers the queues and the workers of the runs."""


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """Paginates the first COUNT_LIMIT rows. Later ones are neither counted nor shown."""

    first_ones: "QuerySet[Any] | None" = None
    """The rows that come first, in their order, which are read if there are many.

    They are given if an index has the order of these, but not that of all.
    """

    @cached_property
    def _found(self) -> dict[int, Found]:
        """Return what has been found of each page."""
        return {}

    @cached_property
    def count(self) -> int:
        return min(self._counted, COUNT_LIMIT)

    @property
    def is_cut(self) -> bool:
        """Return True if there are rows after the last page."""
        return self._counted > COUNT_LIMIT

    @property
    def _counted(self) -> int:
        return (next(iter(self._found.values()), None) or self._find(1)).count

    def get_page(self, number: Any) -> "Page[Any]":  # noqa: ANN401 - as in Django
        """Return the page of this number, or the last one if there is none."""
        if isinstance(number, int) and 1 <= number <= COUNT_LIMIT // self.per_page:
            self._find(number)  # counts the rows as well
        return super().get_page(number)

    def page(self, number: Any) -> "Page[Any]":  # noqa: ANN401 - as in Django
        number = self.validate_number(number)
        return self._get_page(self._find(number).read(), number, self)  # type: ignore[no-any-return, attr-defined]

    def _find(self, number: int) -> Found:
        if number not in self._found:
            rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]
            start = (number - 1) * self.per_page
            stop = min(start + self.per_page, COUNT_LIMIT)
            if self.first_ones is not None and _count(rows) > COUNT_LIMIT:
                rows = self.first_ones
            found = find(rows, start, stop, COUNT_LIMIT + 1)
            if rows is self.first_ones and found.count <= COUNT_LIMIT:
                found = find(self.object_list, start, stop, COUNT_LIMIT + 1)  # type: ignore[arg-type]
            self._found[number] = found
        return self._found[number]


def _count(rows: "QuerySet[Any]") -> int:
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
