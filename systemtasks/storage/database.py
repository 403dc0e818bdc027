"""Ask the database that has the rows, outside the hot path of `rows.py`."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from django.db import connections

from systemtasks.conf import conf


def execute(statement: Any, parameters: Sequence[Any] | None = None) -> list[Any]:  # noqa: ANN401 - a text, or psycopg's
    """Execute a statement, and return the rows that it returns."""
    with connections[conf().DATABASE].cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []


def has_turn(name: str) -> bool:
    """Return True if no other process has this turn, and keep it until the transaction ends."""
    [(turn,)] = execute("SELECT pg_try_advisory_xact_lock(hashtext(%s))", [name])
    return bool(turn)


def database_time() -> datetime:
    """Return the time by the database's clock, in UTC."""
    # Without an offset, since with USE_TZ=False Django would give it in the project's zone.
    moment: datetime = execute("SELECT clock_timestamp() AT TIME ZONE 'UTC'")[0][0]
    return moment.replace(tzinfo=UTC)
