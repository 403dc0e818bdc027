"""Find the rows of a page and their number by one statement, of which Postgres keeps the plan.

Postgres plans a query of the runs for each of their partitions, and looks at each index of these.
With 68 partitions that takes 8 to 14 ms, and longer than to execute it. So the keys of the page and
the count come from one statement. Its plan stays on the connection for a while: pages that refresh
themselves, and programs that poll, repeat the same text. The columns of the rows are read
afterwards by their keys, which are in few partitions.

The text of a statement contains its values. With parameters, Postgres would not know that a state
is a rare one, which has an index.
"""

import json
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import Error, connections
from django.db.models import QuerySet
from psycopg import capabilities
from psycopg.errors import InvalidSqlStatementName

from systemtasks.connecting import PreparedCursor, connect, keeps_plans
from systemtasks.models import TaskRun

KEPT = 10
"""Plans that a connection keeps. Each takes 0.4 MB of Postgres's memory with 68 partitions."""

FIND = """
WITH found (key) AS MATERIALIZED ({rows})
SELECT json_build_object('count', (SELECT count(*) FROM found),
    'keys', ARRAY(SELECT key FROM found LIMIT {limit} OFFSET {offset}))::text
"""


@dataclass(frozen=True, slots=True)
class Found:
    """The keys of the rows of a page, in order, and the number of all rows as far as counted."""

    rows: "QuerySet[Any]"
    keys: list[str]
    count: int
    sql: str = ""

    def read(self) -> list[Any]:
        """Return the rows of the page. One that has changed meanwhile may be missing."""
        return list(self.rows.filter(pk__in=self.keys)) if self.keys else []

    def estimate(self) -> int:
        """Return the estimate of Postgres's planner of the number of all rows."""
        if not self.sql:
            return estimate(self.rows)
        connection = connections[self.rows.db]
        cursor = _cursor(connection)
        name = cursor and cursor.name_of(self.sql)
        text = ""
        if name:
            try:
                [(text,)] = _fetch_plainly(connection, f"EXPLAIN (FORMAT JSON) EXECUTE {name}")
            except Error:  # a pooler has given it another name
                text = ""
        if not text:
            [(text,)] = _fetch_plainly(connection, f"EXPLAIN (FORMAT JSON) {self.sql}")
        [explained] = text if isinstance(text, list) else json.loads(text)
        parts = explained["Plan"]["Plans"]
        limit = next(part for part in parts if part.get("Subplan Name") == "CTE found")
        return int(limit["Plans"][0]["Plan Rows"])


def find(rows: "QuerySet[Any]", start: int, stop: int, most: int) -> Found:
    """Find the keys of the rows from `start` to `stop`, and count all rows.

    No more than `most` rows are counted, or those until `stop`.
    """
    if rows.model is not TaskRun:
        # To plan a query of one table takes less than to put into order all rows that are counted.
        keys = [str(key) for key in rows.values_list("pk", flat=True)[start:stop]]
        seen = start + len(keys) if keys else 0
        return Found(rows, keys, max(rows.order_by().values("pk")[:most].count(), seen))
    sql = _sql(rows.values("pk")[: max(most, stop)])
    if sql is None:
        return Found(rows, [], 0)
    sql = FIND.format(rows=sql, limit=max(stop - start, 0), offset=start)
    [(text,)] = _fetch(connections[rows.db], sql)
    found = json.loads(text)
    return Found(rows, found["keys"], found["count"], sql)


def estimate(rows: "QuerySet[Any]") -> int:
    """Return the estimate of Postgres's planner of the number of rows."""
    [explained] = json.loads(rows.order_by().values("pk").explain(format="json"))
    return int(explained["Plan"]["Plan Rows"])


def _sql(rows: "QuerySet[Any, Any]") -> str | None:
    """Return the SQL of a query with its values, or None if it can have no rows."""
    connection: Any = connections[rows.db]
    try:
        sql, parameters = rows.query.get_compiler(using=rows.db).as_sql()
    except EmptyResultSet:
        return None
    connect(connection)
    return str(connection.ops.compose_sql(sql, parameters))


def _fetch(connection: Any, sql: str) -> list[tuple[Any, ...]]:  # noqa: ANN401 - Django's
    """Execute a statement, with the plan of the last time if it is kept, and return its rows."""
    connect(connection)
    if cursor := _cursor(connection):
        try:
            connection._prepare_cursor(cursor).execute(sql)
            found = cursor.fetchall()
        except Error as error:
            cursor.forget(0)
            if not isinstance(error.__cause__, InvalidSqlStatementName):
                raise
        else:
            cursor.forget(KEPT)
            return found
    return _fetch_plainly(connection, sql)


def _fetch_plainly(connection: Any, sql: str) -> list[tuple[Any, ...]]:  # noqa: ANN401 - Django's
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


def _cursor(connection: Any) -> PreparedCursor | None:  # noqa: ANN401 - Django's
    """Return the cursor that keeps plans on this connection, or None if none may be kept."""
    # Without a message of the protocol for it, a pooler would not take part in dropping a plan.
    drops_plans = capabilities.has_send_close_prepared()
    if not (drops_plans and keeps_plans(connection)):
        return None
    raw = connection.connection
    cursor: PreparedCursor | None = getattr(raw, "systemtasks_pages", None)
    if cursor is None:
        cursor = raw.systemtasks_pages = PreparedCursor(raw, "systemtasks_page")
    return cursor
