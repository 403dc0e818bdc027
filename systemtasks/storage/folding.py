"""Fold ended runs into statistics: hours from runs, days from hours, months from days.

An hour is counted once, from its runs, soon after it is over: the row of StatisticsProgress says
how far. Whatever changes in it later (a long run ends, a journal is written after an outage, an
orphaned run turns out to have succeeded) is noted by a trigger of the table of runs as a
StatisticsChange, which is added to the hour, its day and its month. So the runs of an hour are
never needed again, and it does not matter which of them have expired.

Nothing is counted twice or left out, in whatever order transactions end:

- A transaction that changes a run of an hour which is over notes it. So one that notes nothing has
  written while that hour lasted. Before the hour is counted, all transactions have ended that began
  to write before the hour was over. That is what `transaction` in StatisticsProgress is for.
- The statement that counts an hour also deletes the changes of it that it sees. Of each
  transaction, it sees the runs and the changes, or neither.

Any worker and beat can do so, but only one process at a time does.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Q, QuerySet

from systemtasks.conf import conf
from systemtasks.models import Period, StatisticsProgress, TaskStatistics
from systemtasks.own_logger import own_logger
from systemtasks.statistics import (
    HOUR,
    KEYS,
    SIGN,
    VALUES,
    floor,
    folded_until,
    following,
    parts_of_runs,
    sum_of_parts,
)
from systemtasks.storage.database import database_time, execute, has_turn

logger = own_logger(__name__)

LONGEST_LOOK = 1.0  # seconds after which the writer's batches have their turn
MARGIN = timedelta(minutes=5)  # for a clock of the database's that is set back
CHANGES_LIMIT = 10_000  # changes that are added at once
EXPIRED_LIMIT = 10_000  # rows that are deleted at once
LATE = timedelta(days=1)  # after which expired runs are deleted, though they are not counted

_BEGINNING = datetime.min.replace(tzinfo=UTC)
_COLUMNS = ", ".join(("period", *KEYS, *VALUES))
_INSERT = f"INSERT INTO systemtasks_taskstatistics ({_COLUMNS})"
_GIVEN_KEYS = ", ".join(KEYS)

COUNT_HOUR = f"""
    WITH counted AS (
        DELETE FROM systemtasks_statisticschange WHERE sort_timestamp >= %s AND sort_timestamp < %s
    )
    {_INSERT}
    SELECT 'hour', {_GIVEN_KEYS}, {", ".join(VALUES)} FROM (
        {
    sum_of_parts(
        parts_of_runs("systemtasks_taskrun", "sort_timestamp >= %s AND sort_timestamp < %s"),
        KEYS,
    )
}
    ) AS part
"""
"""Count the runs of an hour, given its start and end twice, and forget its changes so far."""

SUM_PERIODS = f"""
    {_INSERT}
    SELECT %s, {_GIVEN_KEYS}, {", ".join(VALUES)} FROM (
        {
    sum_of_parts(
        f'''
            SELECT %s::timestamptz AS start, {", ".join((*KEYS[1:], *VALUES))}
            FROM systemtasks_taskstatistics WHERE period = %s AND start >= %s AND start < %s
            ''',
        KEYS,
    )
}
    ) AS part
"""
"""Make a day of hours, or a month of days, given its period and start, and what it is made of."""

_KEYS_OF_CHANGE = ("period", *KEYS)
_SAME = " AND ".join(f"old.{key} = change.{key}" for key in _KEYS_OF_CHANGE)
ADD_CHANGES = f"""
    WITH taken AS MATERIALIZED (
        DELETE FROM systemtasks_statisticschange WHERE id IN (
            SELECT id FROM systemtasks_statisticschange
            WHERE sort_timestamp < %s ORDER BY id LIMIT {CHANGES_LIMIT}
        ) RETURNING *
    ),
    change AS MATERIALIZED (
        SELECT period.name AS period, date_trunc(period.name, start, 'UTC') AS start,
            {", ".join((*KEYS[1:], *VALUES))}
        FROM ({parts_of_runs("taken", "true", SIGN)}) AS one
        JOIN unnest(%s::text[], %s::timestamptz[]) AS period (name, until) ON start < until
    ),
    added AS (
        {_INSERT} SELECT {_COLUMNS} FROM (
            {
    sum_of_parts(
        f'''
                SELECT {_COLUMNS} FROM change
                UNION ALL SELECT {_COLUMNS} FROM systemtasks_taskstatistics AS old
                WHERE EXISTS (SELECT FROM change WHERE {_SAME})
                ''',
        _KEYS_OF_CHANGE,
    )
}
        ) AS part
        ON CONFLICT (period, start, system_task, state, status)
        DO UPDATE SET {", ".join(f"{value} = EXCLUDED.{value}" for value in VALUES)}
    )
    SELECT DISTINCT date_trunc('hour', sort_timestamp AT TIME ZONE 'UTC'), system_task_id, state,
        status, sign
    FROM taken
"""
"""Add changes to the hours, days and months that have been counted.

Takes the end of the counted hours, and then the names of the periods and until when each has been
counted. Returns the keys of the hours, with each sign that a change of them had.
"""

DELETE_PERIODS = """
    DELETE FROM systemtasks_taskstatistics WHERE period = %s AND start BETWEEN %s AND %s RETURNING 1
"""

DELETE_EMPTY = """
    DELETE FROM systemtasks_taskstatistics WHERE runs = 0 AND start = ANY(
        SELECT date_trunc(name, %s::timestamptz, 'UTC') FROM unnest(%s::text[]) AS period (name)
    )
"""
"""Delete the rows of an hour, its day and its month that count no run any more."""

FIND_NEXT = """
    WITH found AS (
        SELECT min(sort_timestamp) AS first FROM systemtasks_taskrun
        WHERE sort_timestamp >= %s AND sort_timestamp < %s
    ),
    counted AS (
        DELETE FROM systemtasks_statisticschange USING found WHERE sort_timestamp >= %s
        AND sort_timestamp < date_trunc('hour', coalesce(found.first, %s), 'UTC')
    )
    SELECT first AT TIME ZONE 'UTC' FROM found
"""
"""Find the first run in a span, given its start and end twice.

Forgets the changes so far of the hours before, which have no runs.
"""


def _set_maxima(parts: str) -> str:
    """Return the statement that sets the maxima of a row from what it was made of.

    A maximum that is taken out cannot be subtracted. Does nothing if a part is missing by now.
    """
    return f"""
        UPDATE systemtasks_taskstatistics AS old
        SET duration_max = found.duration_max, last_finish = found.last_finish
        FROM ({sum_of_parts(parts, KEYS[1:], ())}) AS found
        WHERE old.period = %s AND old.start = %s AND old.runs = found.runs
        AND (old.system_task, old.state, old.status)
            = (found.system_task, found.state, found.status)
    """


SET_MAXIMA_OF_HOUR = _set_maxima(
    parts_of_runs(
        "systemtasks_taskrun",
        "sort_timestamp >= %s AND sort_timestamp < %s AND system_task_id = %s AND state = %s "
        "AND status = %s",
    )
)
SET_MAXIMA_OF_PERIOD = _set_maxima(
    "SELECT * FROM systemtasks_taskstatistics WHERE period = %s AND start >= %s AND start < %s "
    "AND system_task = %s AND state = %s AND status = %s AND runs > 0"  # of none, no maximum
)


def fold_for_a_while() -> bool:
    """Fold what is due, but no longer than LONGEST_LOOK. Return True if there may be more to do.

    Raise OperationalError or InterfaceError if the database is away or busy.
    """
    began = time.monotonic()
    try:
        while is_more := fold():
            if time.monotonic() - began > LONGEST_LOOK:
                break
        delete_expired_statistics()
    except (OperationalError, InterfaceError):
        raise
    except Exception:  # what has expired is deleted all the same
        logger.exception("Runs are not counted for the statistics")
        return False
    return is_more


def fold_all() -> None:
    """Fold all that is due."""
    while fold():
        pass


def fold() -> bool:
    """Add up to CHANGES_LIMIT changes, or count an hour. Return True if there may be more to do."""
    with transaction.atomic(using=conf().DATABASE):
        if not has_turn("systemtasks.statistics"):
            return False
        progress, _ = StatisticsProgress.objects.using(conf().DATABASE).get_or_create()
        if progress.folded_until is not None and _add_changes(progress.folded_until):
            return True
        if progress.due_until is None:
            return _make_due(progress)
        if not _all_have_ended(progress):
            return False
        _count_next_hour(progress, progress.due_until)
        return True


def counted(folded: datetime | None = None) -> Q:
    """Return the condition that an expired run may be deleted, because it has been counted.

    `folded` is the end of the hours that will have been counted by then, if it is not now. If
    nothing is counted for LATE, space matters more.
    """
    condition = Q(sort_timestamp__isnull=True) | Q(expires__lte=database_time() - LATE)
    folded = folded or folded_until()
    return condition if folded is None else condition | Q(sort_timestamp__lt=folded)


def foldable_until() -> datetime:
    """Return the end of the hours that are over, and can be counted."""
    return floor(database_time() - MARGIN, Period.HOUR)


def expired_statistics() -> "dict[Period, QuerySet[TaskStatistics]]":
    """Return the statistics that have expired, for each period that ever does."""
    kept = {
        Period.HOUR: conf().HOURLY_STATISTICS_DAYS,
        Period.DAY: conf().DAILY_STATISTICS_DAYS,
        Period.MONTH: conf().MONTHLY_STATISTICS_DAYS,
    }
    today = floor(database_time(), Period.DAY)
    rows = TaskStatistics.objects.using(conf().DATABASE)
    return {
        period: rows.filter(period=period, start__lt=today - timedelta(days=days))
        for period, days in kept.items()
        if days
    }


def delete_expired_statistics() -> int:
    """Delete about EXPIRED_LIMIT expired rows of each period. Return their number."""
    deleted = 0
    for period, rows in expired_statistics().items():
        starts = [*rows.order_by("start").values_list("start", flat=True)[:EXPIRED_LIMIT]]
        if starts:
            deleted += _delete(period, starts[0], starts[-1])
    return deleted


def _make_due(progress: StatisticsProgress) -> bool:
    """Make the hours due that are over by now. Return True if there are any."""
    until = foldable_until()
    if progress.folded_until is not None and until <= progress.folded_until:
        return False
    progress.due_until = until
    [(progress.transaction,)] = execute("SELECT pg_current_xact_id()::text::bigint")
    progress.save()
    return True


def _all_have_ended(progress: StatisticsProgress) -> bool:
    """Return True if all transactions have ended that had begun to write when hours became due."""
    [(oldest, newest)] = execute(
        "SELECT pg_snapshot_xmin(now)::text::bigint, pg_snapshot_xmax(now)::text::bigint "
        "FROM pg_current_snapshot() AS now"
    )
    awaited = progress.transaction or 0
    # A transaction in the future was one of another server, from which this database is a copy.
    return bool(oldest > awaited or newest <= awaited)


def _count_next_hour(progress: StatisticsProgress, due_until: datetime) -> None:
    """Count the next hour that has runs, or skip those that have none."""
    folded = progress.folded_until
    [(first,)] = execute(FIND_NEXT, [folded or _BEGINNING, due_until] * 2)
    hour = floor(first.replace(tzinfo=UTC), Period.HOUR) if first else due_until
    until = hour
    if hour == folded:
        until = hour + HOUR
        _delete(Period.HOUR, hour, hour)
        execute(COUNT_HOUR, [hour, until] * 2)
    if folded is not None:
        _sum_period(Period.DAY, Period.HOUR, folded, until)
        _sum_period(Period.MONTH, Period.DAY, folded, until)
    progress.folded_until = until
    if until >= due_until:
        progress.due_until = None
    progress.save()


def _sum_period(period: Period, of: Period, folded: datetime, until: datetime) -> None:
    """Make a day or a month, if it is over now and was not before."""
    start = floor(folded, period)
    if start == floor(until, period):
        return
    _delete(period, start, start)
    execute(SUM_PERIODS, [str(period), start, str(of), start, following(start, period)])


def _delete(period: Period, first: datetime, last: datetime) -> int:
    """Delete the hours, days or months from the first to the last. Return the number of rows.

    Not by the ORM, which would tell receivers of the project's that listen to any model.
    """
    return len(execute(DELETE_PERIODS, [str(period), first, last]))


def _add_changes(folded: datetime) -> int:
    """Add changes to what has been counted. Return their number, or less."""
    periods = [str(period) for period in Period]
    until = [floor(folded, period) for period in Period]
    changed = execute(ADD_CHANGES, [folded, periods, until])
    for hour, *key, sign in changed:
        if sign < 0:
            _set_maxima_of(hour.replace(tzinfo=UTC), key)
    for hour in {hour for hour, *_, sign in changed if sign < 0}:
        execute(DELETE_EMPTY, [hour.replace(tzinfo=UTC), periods])
    return len(changed)


def _set_maxima_of(hour: datetime, key: list[Any]) -> None:
    """Set the maxima of an hour of which a run was taken out, and those of its day and month."""
    execute(SET_MAXIMA_OF_HOUR, [hour, hour + HOUR, *key, "hour", hour])
    for period, of in ((Period.DAY, Period.HOUR), (Period.MONTH, Period.DAY)):
        start = floor(hour, period)
        execute(
            SET_MAXIMA_OF_PERIOD,
            [str(of), start, following(start, period), *key, str(period), start],
        )
