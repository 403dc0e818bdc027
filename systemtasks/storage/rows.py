"""Writes records as rows: what a batch comes to, statement by statement. See `sql.py` for those.

A row of an attempt goes from queued to running to ended, whatever the order in which the processes
that know of it write. Only the writer's thread calls these functions.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, TypeVar
from uuid import UUID

import orjson
import psycopg
from django.db import IntegrityError, connections, transaction
from psycopg.errors import ForeignKeyViolation, UniqueViolation

from systemtasks.conf import conf
from systemtasks.ids import system_task_uuid
from systemtasks.runs.messages import not_run_yet
from systemtasks.runs.records import KnownTask, RunRecord
from systemtasks.storage import sql
from systemtasks.storage.precedence import (
    facts_of_run,
    facts_of_task,
    run_replaces,
    task_replaces,
)
from systemtasks.storage.sql import Statement

Facts = TypeVar("Facts")
Key = tuple[str, int]
"""The Celery id and the number of an attempt, which identify it."""

TRIES = 3
"""How often a batch is written that meets another process's new row, or a row that was deleted."""

TASKS_WITH_ROW_LIMIT = 10_000
_tasks_with_row: set[UUID] = set()
"""The SystemTasks that have a row, as far as this process knows: about TASKS_WITH_ROW_LIMIT."""


def write(records: Sequence[RunRecord]) -> None:
    """Write these records in one transaction.

    Raises what the database raises, and then has written none of them.
    """
    for tries_left in reversed(range(TRIES)):
        try:
            with transaction.atomic(using=conf().DATABASE):
                _write(records)
        except IntegrityError as error:
            # ON CONFLICT looks at one unique index: where two processes insert a new task at the
            # same moment, the other index may refuse it. Now that row is there to be updated.
            # And a task that had a row may have been deleted.
            expected = isinstance(error.__cause__, UniqueViolation | ForeignKeyViolation)
            if not expected or not tries_left:
                raise
            _tasks_with_row.clear()
        else:
            return


def forget() -> None:
    """Forget which SystemTasks have a row: they may have been rolled back."""
    _tasks_with_row.clear()


def announce(tasks: Collection[KnownTask]) -> None:
    """Insert rows for these tasks which say that they have not run yet, where they have none."""
    _insert_tasks(sql.INSERT_KNOWN_TASKS, [(task, None) for task in tasks])


def renew_lease(lease: str) -> None:
    """Note a sign of life of the worker with this lease, and so of each of its runs."""
    _execute(sql.RENEW_LEASE, lease)


def end_orphaned_runs(seconds: float) -> int:
    """End the runs whose worker has given no sign of life for so long, and return how many."""
    with transaction.atomic(using=conf().DATABASE):
        ended = [row[0] for row in _execute(sql.END_ORPHANED_RUNS, seconds)]
        _show_runs(ended)
    return len(ended)


def _write(records: Sequence[RunRecord]) -> None:
    # What children know comes first, so that what the main process knows of their ends finds it.
    of_children = _standing_runs(record for record in records if not record.from_main_process)
    of_main_process = _standing_runs(record for record in records if record.from_main_process)
    written = _upsert_runs(of_children)
    changed = _add_messages(_refused(of_children, written))
    inserted, ended = _end_runs_of_children(of_main_process)

    ends = _ends_that_count(records, [*written, *inserted, *_unsaved(of_children)])
    _upsert_tasks(ends)
    _insert_tasks_of_unfinished(of_children)
    _show_runs([*changed, *ended])
    _delete_tasks_of_first_uids(ends)


# What becomes of the runs.


def _upsert_runs(records: Collection[RunRecord]) -> list[RunRecord]:
    """Write the rows of these runs, and return the records that stand in them now."""
    _execute_with(sql.DELETE_UNSAVED_RUNS, _unsaved(records))
    saved = [record for record in records if record.save_run]
    # Their SystemTasks may come later in the transaction: the foreign key is a deferred one.
    keys = set(_execute_with(sql.UPSERT_TASK_RUNS, saved))
    return [record for record in saved if _key(record) in keys]


def _add_messages(records: Collection[RunRecord]) -> list[int]:
    """Add the messages of ends that came too late to their rows, and return the rows' ids."""
    return [id_ for id_, _, _ in _execute_with(sql.ADD_MESSAGES_OF_CHILDREN, records)]


def _end_runs_of_children(records: Collection[RunRecord]) -> tuple[list[RunRecord], list[int]]:
    """End runs by what the main process knows.

    Return the records that are rows now because their children had written none, and the ids of
    the children's rows that have ended.
    """
    ended = _execute_with(sql.END_RUNS_OF_CHILDREN, records)
    keys = {(celery_id, attempt) for _, celery_id, attempt in ended}
    without_row = [record for record in records if _key(record) not in keys]
    written = _upsert_runs(without_row)
    # A child may have written its row between those two statements.
    ended += _execute_with(sql.END_RUNS_OF_CHILDREN, _refused(without_row, written))
    return written, [id_ for id_, _, _ in ended]


# What becomes of their tasks.


def _upsert_tasks(ends: Iterable[RunRecord]) -> None:
    """Have the tasks of these ends show them."""
    latest = _standing(ends, _uuid, facts_of_task, task_replaces)
    _execute_with(sql.UPSERT_SYSTEM_TASKS, latest)
    _remember_rows_of(latest)


def _insert_tasks_of_unfinished(records: Iterable[RunRecord]) -> None:
    """Insert the tasks of the runs among these that are queued or running, if they have no row."""
    unfinished = [record for record in records if record.finish_timestamp is None]
    without_row = [record for record in unfinished if _uuid(record) not in _tasks_with_row]
    _insert_tasks(
        sql.INSERT_TASKS_OF_UNFINISHED_RUNS, [(record, record.expires) for record in without_row]
    )
    _remember_rows_of(without_row)


def _insert_tasks(
    statement: Statement, tasks: Collection[tuple[RunRecord | KnownTask, datetime | None]]
) -> None:
    """Insert rows of tasks of which no run has ended, each with the time when it expires."""
    rows = {
        _uuid(task): {
            "uuid": _uuid(task),
            "name": task.name,
            "uid": task.uid,
            "description": task.description,
            "messages": orjson.Fragment(not_run_yet(task.name)),
            "expires": expires,
        }
        for task, expires in tasks
    }
    if rows:
        _execute(statement, _json(rows.values()))


def _show_runs(ids: list[int]) -> None:
    """Have the tasks of the runs with these ids show them."""
    if ids:
        _execute(sql.SHOW_RUNS, ids)


def _delete_tasks_of_first_uids(ends: Iterable[RunRecord]) -> None:
    """Delete the tasks that stood for these runs before they said of which uid they are."""
    uuids = [
        system_task_uuid(record.name, record.first_uid)
        for record in ends
        if record.uid != record.first_uid
    ]
    if uuids:
        _execute(sql.DELETE_TASKS_THAT_NEVER_RAN, uuids)
        _tasks_with_row.difference_update(uuids)


def _remember_rows_of(records: Iterable[RunRecord]) -> None:
    if len(_tasks_with_row) > TASKS_WITH_ROW_LIMIT:
        _tasks_with_row.clear()
    _tasks_with_row.update(map(_uuid, records))


# Which records count.


def _standing_runs(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return one record of each attempt among these: the one that would stand in its row."""
    return _standing(records, _key, facts_of_run, run_replaces)


def _standing(
    records: Iterable[RunRecord],
    key_of: Callable[[RunRecord], Hashable],
    facts_of: Callable[[RunRecord], Facts],
    replaces: Callable[[Facts, Facts], bool],
) -> list[RunRecord]:
    """Return one record of each key: the one that stands if they are written one by one."""
    standing: dict[Hashable, tuple[Facts, RunRecord]] = {}
    for record in records:
        key, facts = key_of(record), facts_of(record)
        old = standing.get(key)
        if old is None or replaces(facts, old[0]):
            standing[key] = facts, record
    return [record for _, record in standing.values()]


def _ends_that_count(
    records: Iterable[RunRecord], standing: Iterable[RunRecord]
) -> list[RunRecord]:
    """Return the ends that their tasks are to show, if they are the latest.

    A final end counts even if a later run of the same id has its row by now. An end that gives way
    counts only if it stands.
    """
    return [
        *(record for record in standing if record.finish_timestamp and _gives_way(record)),
        *(record for record in records if record.finish_timestamp and not _gives_way(record)),
    ]


def _refused(records: Iterable[RunRecord], written: Iterable[RunRecord]) -> list[RunRecord]:
    """Return the ends that gave way to a row which another process has written."""
    keys = set(map(_key, written))
    return [
        record
        for record in records
        if record.finish_timestamp and _gives_way(record) and _key(record) not in keys
    ]


def _gives_way(record: RunRecord) -> bool:
    """Return True for an end that another process may know better."""
    return record.provisional or record.from_main_process


def _unsaved(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return the runs among these that are not kept, since they were successful."""
    return [record for record in records if not record.save_run]


def _key(record: RunRecord) -> Key:
    return record.celery_id, record.attempt


def _uuid(record: RunRecord | KnownTask) -> UUID:
    return system_task_uuid(record.name, record.uid)


# How a statement is executed.

_VALUES: Mapping[str, Callable[[RunRecord], object]] = {
    "uuid": _uuid,
    "system_task_id": _uuid,
    # A row with a lease waits for its end, and there is none after that of the main process.
    "lease": lambda record: None if record.from_main_process else record.lease,
    "ended_lease": lambda record: record.lease,
}
"""The values of columns that no record has under the same name."""

_JSON_COLUMNS = {"args", "kwargs", "context", "messages"}
"""The columns whose value is JSON already."""


def _execute_with(statement: Statement, records: Collection[RunRecord]) -> list[Any]:
    """Execute a statement with these records, and return its rows. Do nothing without any."""
    if not records:
        return []
    own = [name for name in statement.columns if name not in _VALUES]
    values_of = attrgetter(*own)
    json = [name for name in own if name in _JSON_COLUMNS]
    other = [(name, _VALUES[name]) for name in statement.columns if name in _VALUES]
    rows = []
    for record in records:
        row = dict(zip(own, values_of(record), strict=True))
        for name in json:
            if row[name] is not None:
                row[name] = orjson.Fragment(row[name])
        for name, value_of in other:
            row[name] = value_of(record)
        rows.append(row)
    return _execute(statement, _json(rows))


def _json(rows: Iterable[dict[str, Any]]) -> str:
    return orjson.dumps(list(rows)).decode()


def _execute(statement: Statement, value: str | float | list[Any]) -> list[Any]:
    """Execute a statement with its parameter, and return the rows that it returns."""
    connection: Any = connections[conf().DATABASE]
    connection.ensure_connection()
    # Bound on the server, unlike Django's own cursor: Postgres need not read a batch as SQL, and
    # with the connection's prepare_threshold keeps the plan, which takes longer than a few rows.
    with connection._prepare_cursor(psycopg.Cursor(connection.connection)) as cursor:
        cursor.execute(statement.text, [value])
        return cursor.fetchall() if cursor.description else []
