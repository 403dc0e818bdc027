"""Make and drop the partitions of the table of runs: one for each day of the times in their ids.

A day whose runs have all expired is dropped with its partition. That costs as much as a file that
is deleted, and gives its space back. Runs of it that are kept longer move to the default partition,
if they are few; if not, the day waits, and its runs are deleted one by one.

The default partition has the runs of any other time: of hosts whose clock is wrong, or of days for
which no partition was made in time. Those of a day move if it gets one later; if they are too many
for that, it gets none, and they are deleted one by one. So no insert ever fails for want of a
partition. It is also why a partition is not detached CONCURRENTLY: Postgres refuses that where
there is a default one. The lock on the table that it takes instead is held for milliseconds, and
waited for no longer than LOCK_TIMEOUT.
"""

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from django.db import (
    IntegrityError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    transaction,
)
from django.db.models import Q
from django.db.models.signals import post_delete, pre_delete
from psycopg import sql

from systemtasks.conf import conf
from systemtasks.ids import first_id
from systemtasks.models import ROWS_OF_RUNS, TaskRun
from systemtasks.own_logger import own_logger
from systemtasks.states import UNFINISHED, State
from systemtasks.statistics import folded_until
from systemtasks.storage.database import database_time, execute, has_turn
from systemtasks.storage.folding import LATE

logger = own_logger(__name__)

AHEAD = 7  # days for which there is a partition before they begin
INTERVAL = 600.0  # seconds between two looks
LOCK_TIMEOUT = "200ms"  # for the whole table: whoever writes or reads waits behind this one
MOVED_LIMIT = 10_000  # runs that move at once, while whoever writes or reads waits

TABLE = TaskRun._meta.db_table
DEFAULT = f"{TABLE}_default"
DAY = timedelta(days=1)
NAME = re.compile(rf"{TABLE}_(\d{{8}})")
OUTLIVES = """(expires IS NULL OR expires > now() OR state = ANY({kept_states})
    OR (sort_timestamp >= {folded_until} AND expires > now() - {late}))"""
"""The condition in SQL that a run is kept although its day is dropped.

Also if it is not in the statistics yet, as long as these are not late.
"""


@dataclass(frozen=True, slots=True)
class ExpiredDay:
    """A day whose partition is old enough to be dropped."""

    day: date
    runs: int
    outliving: int
    """Runs of it that have not expired, or that run."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan for the days that have a partition."""

    to_drop: list[ExpiredDay]
    to_wait: list[ExpiredDay]
    """Days that too many runs outlive. The other runs of them are deleted one by one."""
    left_alone: list[date]
    """Days whose runs are not deleted one by one, because they will all be dropped at once."""


class Partitions:
    """Makes partitions ahead, and drops those of expired days, once in a while."""

    def __init__(self) -> None:
        self._next_look = 0.0
        self._reported = False
        self.left_alone: list[date] = []
        """The days whose runs are not deleted one by one, because they will be dropped."""

    def keep(self) -> None:
        """Make and drop partitions, if it is time.

        Raise OperationalError or InterfaceError if the database is away or busy.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + INTERVAL
        try:
            make_ahead()
            plan = plan_days()
            self.left_alone = plan.left_alone
            for expired in plan.to_drop:
                _drop_and_log(expired)
        except (OperationalError, InterfaceError):
            self._next_look = now + INTERVAL / 60  # somebody had the table locked
            raise
        except (ProgrammingError, IntegrityError) as error:
            self.left_alone = []  # their runs are deleted one by one
            if not self._reported:
                self._reported = True
                logger.warning("The partitions of the table of runs cannot be changed: %s", error)


def kept_states() -> tuple[State, ...]:
    """Return the states in which a run is kept although it has expired."""
    # A run that was sent waits until it is known to be lost, so that it is not gone unseen.
    return UNFINISHED if conf().LOST_AFTER_DAYS else (State.RUNNING,)


def is_droppable() -> bool:
    """Return True if nothing of the project's own depends on each run's being deleted by Django."""
    listeners = pre_delete.has_listeners(TaskRun) or post_delete.has_listeners(TaskRun)
    return not listeners and not TaskRun._meta.related_objects


def bounds(day: date) -> tuple[UUID, UUID]:
    """Return the first id of a day, and the first one of the next day, in UTC."""
    return first_id(_midnight(day)), first_id(_midnight(day + DAY))


def is_of(days: Iterable[date]) -> Q:
    """Return the condition that a run's id is of one of these days; an empty one without any."""
    condition = Q()
    for day in days:
        first, end = bounds(day)
        condition |= Q(id__gte=first, id__lt=end)
    return condition


def existing() -> list[date]:
    """Return the days that have a partition, in order."""
    rows = execute(
        "SELECT partition.relname FROM pg_inherits JOIN pg_class AS partition "
        "ON partition.oid = inhrelid WHERE inhparent = %s::regclass",
        [TABLE],
    )
    found = (NAME.fullmatch(name) for (name,) in rows)
    return sorted(datetime.strptime(match[1], "%Y%m%d").date() for match in found if match)  # noqa: DTZ007


def make_ahead() -> list[date]:
    """Make the partitions of today and the next days that there are not. Return their days."""
    today = database_time().date()
    return make(today + number * DAY for number in range(AHEAD + 1))


def make(days: Iterable[date]) -> list[date]:
    """Make the partitions of those of these days that have none. Return these."""
    there = set(existing())
    made = [day for day in days if day not in there and _make(day)]
    if made:
        # Autovacuum does so for each partition, but not for the whole table.
        execute(_named("ANALYZE {table}"))
    return made


def plan_days(folded: datetime | None = None) -> Plan:
    """Return what becomes of the days, by when the runs expire that are kept for the usual time.

    `folded` is the end of the hours that will have been counted by then, if it is not now.
    """
    plan = Plan([], [], [])
    if conf().expires_after is None or not is_droppable():
        return plan
    now = database_time()
    for day in existing():
        if _expiry(day) > now:
            continue  # only runs that are kept for a shorter time have expired
        if _expiry(day + DAY) <= now:
            expired = _expired(day, folded)
            if expired.outliving > MOVED_LIMIT:
                plan.to_wait.append(expired)
                continue
            plan.to_drop.append(expired)
        plan.left_alone.append(day)
    return plan


def drop(day: date) -> int:
    """Drop the partition of a day. Return the number of runs that outlive it, which move.

    Raise OperationalError if a lock is not to be had at once.
    """
    with _turn() as is_own:
        if not is_own or day not in existing():
            return 0
        for statement in (
            "LOCK TABLE {partition} IN SHARE ROW EXCLUSIVE MODE",
            "CREATE TEMPORARY TABLE outliving ON COMMIT DROP AS "
            "SELECT * FROM {partition} WHERE {outlives}",
            "ALTER TABLE {table} DETACH PARTITION {partition}",
            "INSERT INTO {table} SELECT * FROM outliving",
            *_deletions_of_rows_of_runs(),
            "SET CONSTRAINTS ALL IMMEDIATE",
            "DROP TABLE {partition}",
        ):
            execute(_named(statement, day))
        [(moved,)] = execute("SELECT count(*) FROM outliving")
        execute("DROP TABLE outliving")
    return int(moved)


def _deletions_of_rows_of_runs() -> list[str]:
    """Return the statements that delete the rows of a day's runs that do not outlive it."""
    of_gone = "WHERE run >= {first} AND run < {end} AND run NOT IN (SELECT id FROM outliving)"
    tables = [model._meta.db_table for model in ROWS_OF_RUNS]
    return [f"DELETE FROM {{schema}}.{table} {of_gone}" for table in tables]  # noqa: S608


def _drop_and_log(expired: ExpiredDay) -> None:
    began = time.monotonic()
    moved = drop(expired.day)
    logger.info(
        "The %d runs of %s are dropped in %.1f s; %d are kept longer",
        expired.runs - moved,
        expired.day,
        time.monotonic() - began,
        moved,
    )


def _make(day: date) -> bool:
    """Make the partition of a day, and move to it what the default one has of the day.

    Return True if it is made, and False if that is too much to move.
    """
    with _turn() as is_own:
        if not is_own or day in existing():
            return False
        [(to_move,)] = execute(
            _named(
                "SELECT count(*) FROM (SELECT FROM {default} WHERE id >= {first} AND id < {end} "
                "LIMIT {limit} + 1) AS found",
                day,
            )
        )
        if to_move > MOVED_LIMIT:
            return False
        for statement in (
            "CREATE TABLE {partition} (LIKE {table} INCLUDING ALL)",
            "LOCK TABLE {default} IN ACCESS EXCLUSIVE MODE",
            "WITH moved AS (DELETE FROM {default} WHERE id >= {first} AND id < {end} RETURNING *) "
            "INSERT INTO {partition} SELECT * FROM moved",
            "ALTER TABLE {table} ATTACH PARTITION {partition} FOR VALUES FROM ({first}) TO ({end})",
        ):
            execute(_named(statement, day))
    return True


def _expired(day: date, folded: datetime | None) -> ExpiredDay:
    statement = "SELECT count(*), count(*) FILTER (WHERE {outlives}) FROM {partition}"
    [(runs, outliving)] = execute(_named(statement, day, folded))
    return ExpiredDay(day, runs, outliving)


def _expiry(day: date) -> datetime:
    """Return when the first run of a day expires that is kept for the usual time."""
    return _midnight(day) + (conf().expires_after or timedelta(0))


@contextmanager
def _turn() -> Iterator[bool]:
    """Begin a transaction that waits for no lock longer than LOCK_TIMEOUT.

    Yield True if no other process has its turn, and keep it so until the end.
    """
    with transaction.atomic(using=conf().DATABASE):
        execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        execute("SET CONSTRAINTS ALL IMMEDIATE")  # those of a transaction around this one
        # What moves to another partition is neither a new run nor one that is gone.
        execute("SET LOCAL systemtasks.moves_runs = 'on'")
        yield has_turn("systemtasks.days")


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _named(
    statement: str, day: date | None = None, folded: datetime | None = None
) -> sql.Composable:
    """Return a statement with the names of the tables, and the first and the last id of a day.

    All tables are in the same schema. `folded` is the end of the counted hours, if it is not that
    of now.
    """
    [(schema,)] = execute(
        "SELECT nspname FROM pg_namespace JOIN pg_class ON relnamespace = pg_namespace.oid "
        "WHERE pg_class.oid = %s::regclass",
        [TABLE],
    )
    values: dict[str, sql.Composable] = {
        "schema": sql.Identifier(schema),
        "table": sql.Identifier(schema, TABLE),
        "default": sql.Identifier(schema, DEFAULT),
        "limit": sql.Literal(MOVED_LIMIT),
        "outlives": sql.SQL(OUTLIVES).format(
            kept_states=sql.Literal([*map(str, kept_states())]),
            folded_until=sql.Literal(folded or folded_until() or datetime.min.replace(tzinfo=UTC)),
            late=sql.Literal(LATE),
        ),
    }
    if day is not None:
        first, end = bounds(day)
        values["partition"] = sql.Identifier(schema, f"{TABLE}_{day:%Y%m%d}")
        values |= {"first": sql.Literal(str(first)), "end": sql.Literal(str(end))}
    return sql.SQL(statement).format(**values)
