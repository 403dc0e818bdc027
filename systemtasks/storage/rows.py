"""Write batches of records as rows, by the statements of `sql.py`.

A run's row goes from queued to running to ended, in whatever order different processes write it.
Only the writer's thread calls these functions.

The id in a message is that of the row of its first execution: the first one that is written. Which
one that is, only the database knows. A broker's `redelivered` is a hint, since a message may be
delivered to two workers, and may be taken for the first time when it is redelivered. So each record
has the id of its message and that of its execution, and the row has both. Further executions get
rows with their own ids.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import zip_longest
from operator import attrgetter
from typing import Any, TypeVar
from uuid import UUID

import orjson
import psycopg
from django.db import IntegrityError, connections, transaction
from django.db.models import F
from psycopg.errors import CheckViolation, ForeignKeyViolation, UniqueViolation

from systemtasks.conf import conf
from systemtasks.connecting import connect
from systemtasks.ids import system_task_uuid
from systemtasks.models import TaskRun
from systemtasks.runs.messages import not_run_yet
from systemtasks.runs.records import KnownTask, RunRecord, ScheduleRecord
from systemtasks.states import Status
from systemtasks.storage import sql
from systemtasks.storage.database import has_turn
from systemtasks.storage.precedence import (
    facts_of_task,
    run_replaces,
    stage_of,
    task_replaces,
)
from systemtasks.storage.sql import Statement

Facts = TypeVar("Facts")
Key = str
"""The id of an execution, or of a message that has had none, as far as the record knows."""

TRIES = 3
"""The number of attempts at a batch that conflicts with what another process has just done."""

TASKS_WITH_ROW_LIMIT = 10_000
_tasks_with_row: set[UUID] = set()
"""A cache of SystemTasks that have a row. It has about TASKS_WITH_ROW_LIMIT at most."""


def write(records: Sequence[RunRecord]) -> None:
    """Write the records in one transaction.

    If the database raises an exception, raise it; none of the records has then been written.
    """
    for tries_left in reversed(range(TRIES)):
        try:
            with transaction.atomic(using=conf().DATABASE):
                _write(records)
        except IntegrityError as error:
            if not _is_conflict(error.__cause__) or not tries_left:
                raise
            _tasks_with_row.clear()
        else:
            return


def _is_conflict(cause: BaseException | None) -> bool:
    """Return True if what another process has done at the same moment refused a row."""
    # ON CONFLICT handles one unique index. If two processes insert a new task at the same moment,
    # the other index may refuse it; the next attempt updates that row. Another reason is a task in
    # the cache whose row has been deleted.
    if isinstance(cause, UniqueViolation | ForeignKeyViolation):
        return True
    # A run that waited for the default partition while its day got one does not belong there any
    # more. Unlike a constraint of the table, that of a partition has no name.
    return isinstance(cause, CheckViolation) and cause.diag.constraint_name is None


def forget() -> None:
    """Clear the cache of SystemTasks that have a row, after a rollback, for example."""
    _tasks_with_row.clear()


def announce(tasks: Collection[KnownTask]) -> None:
    """Insert rows for those of the tasks that have none, as tasks that have not run yet."""
    _insert_tasks(sql.INSERT_KNOWN_TASKS, [(task, None) for task in tasks])


def delete_unrecorded(names: Sequence[str]) -> None:
    """Delete the queued runs of these tasks, which are not recorded, and the tasks without runs.

    A sender that does not know a task does not know either that it is not recorded.
    """
    with transaction.atomic(using=conf().DATABASE):
        _execute(sql.DELETE_QUEUED_RUNS_OF_TASKS, list(names))
        _execute(sql.DELETE_TASKS_OF_NAMES_THAT_NEVER_RAN, list(names))


def write_schedule(
    app: str,
    changed: Collection[ScheduleRecord],
    entries: Collection[str],
    gone: Collection[str] = (),
) -> None:
    """Write the changed entries of the app's schedule, and a sign of life of beat in all of them.

    Delete those that are gone from it, and those of beats that give no sign of life.
    """
    names = {"entries": list(entries), "gone": list(gone)}
    schedule = orjson.dumps({"app": app, "lease": conf().LEASE_SECONDS, **names}).decode()
    with transaction.atomic(using=conf().DATABASE):
        _execute_with(sql.UPSERT_SCHEDULE, changed)
        _execute(sql.KEEP_ENTRIES, schedule)
        _execute(sql.DELETE_OTHER_ENTRIES, schedule)


def write_search_texts(limit: int) -> int | None:
    """Write the texts for the search, for up to `limit` changes of tasks. Return their number.

    Do nothing, and return None, if another process does so at the moment.
    """
    with transaction.atomic(using=conf().DATABASE):
        if not has_turn("systemtasks.search"):
            return None
        return int(_execute(sql.WRITE_SEARCH_TEXTS, limit)[0][0])


def renew_lease(lease: str) -> None:
    """Record a sign of life in each row of a run under this lease."""
    _execute(sql.RENEW_LEASE, lease)


def end_orphaned_runs(seconds: float) -> int:
    """End the runs without a sign of life for this many seconds, and return their number."""
    return _end_runs(sql.END_ORPHANED_RUNS, seconds)


def end_lost_runs(seconds: float) -> int:
    """End up to LOST_LIMIT runs that were due this many seconds ago and have never started.

    Return their number.
    """
    return _end_runs(sql.END_LOST_RUNS, seconds)


def _end_runs(statement: Statement, seconds: float) -> int:
    with transaction.atomic(using=conf().DATABASE):
        ended = [row[0] for row in _execute(statement, seconds)]
        _keep_errors_longer(ended)
        _show_runs(ended)
    return len(ended)


def end_abandoned_runs(lease: str, executions: Iterable[str]) -> int:
    """End those of these executions that still run under this lease. Return their number."""
    given = [{"lease": lease, "execution": execution} for execution in executions]
    with transaction.atomic(using=conf().DATABASE):
        ended = [row[0] for row in _execute(sql.END_ABANDONED_RUNS, _json(given))]
        _keep_errors_longer(ended)
        _show_runs(ended)
    return len(ended)


def _write(records: Sequence[RunRecord]) -> None:
    _set_ages(records)
    # Children's records are written first, so that the main process's ends find their rows.
    of_children = _standing_runs(
        record for record in records if not (record.from_main_process or record.is_beginning)
    )
    of_main_process = _standing_runs(record for record in records if record.from_main_process)
    written = _upsert_runs(of_children, sql.UPSERT_RUNS, sql.UPSERT_FURTHER_RUNS)
    changed = _add_messages(_refused(of_children, written))
    inserted, ended = _end_runs_of_children(of_main_process)
    beginnings = _standing_runs(record for record in records if record.is_beginning)
    ended += _insert_beginnings(beginnings)

    ends = _ends_that_count(records, [*written, *inserted, *_unsaved(of_children)])
    _upsert_tasks(ends)
    _insert_tasks_of_unfinished(of_children)
    _show_runs([*changed, *ended])
    _delete_tasks_of_first_uids(ends)


def _set_ages(records: Iterable[RunRecord]) -> None:
    """Set how long ago the runs started, by the clock that has measured their starts."""
    now = time.time()
    for record in records:
        if record.start_timestamp is not None:
            record.age = max(now - record.start_timestamp.timestamp(), 0.0)


# Runs.


def _upsert_runs(
    records: Collection[RunRecord], statement: Statement, for_further_ones: Statement
) -> list[RunRecord]:
    """Write the rows of these runs, and return the records that were written."""
    _execute_with(sql.DELETE_UNSAVED_RUNS, _unsaved(records))
    written: list[RunRecord] = []
    for saved in _each_message_once(record for record in records if record.save_run):
        # Their SystemTasks may be inserted later in the transaction: the foreign key is deferred.
        keys = {key for (key,) in _execute_with(statement, saved)}
        further = [r for r in saved if _key(r) not in keys and r.execution not in (None, r.id)]
        keys.update(key for (key,) in _execute_with(for_further_ones, further))
        written += [record for record in saved if _key(record) in keys]
    return written


def _each_message_once(records: Iterable[RunRecord]) -> Iterable[list[RunRecord]]:
    """Return the records in lists in which no two have the id of the same message.

    Nearly always there is one list: a message is seldom executed twice in one batch.
    """
    by_message: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        by_message[record.id].append(record)
    return [
        [record for record in same if record is not None]
        for same in zip_longest(*by_message.values())
    ]


def _add_messages(records: Collection[RunRecord]) -> list[UUID]:
    """Add the messages of ends that were not written to the rows, and return the rows' ids."""
    return [id_ for (id_,) in _execute_with(sql.ADD_MESSAGES_OF_CHILDREN, records)]


def _end_runs_of_children(records: Collection[RunRecord]) -> tuple[list[RunRecord], list[UUID]]:
    """End runs by the records of the worker's main process.

    Return the records that became rows because the child had written none, and the ids of the
    children's rows that were ended.
    """
    ended = _execute_with(sql.END_RUNS_OF_CHILDREN, records)
    keys = {execution for _, execution in ended}
    without_row = [record for record in records if _key(record) not in keys]
    written = _upsert_runs(
        without_row, sql.UPSERT_RUNS_BY_MAIN_PROCESS, sql.UPSERT_FURTHER_RUNS_BY_MAIN_PROCESS
    )
    # A child may have written its row between the two statements.
    ended += _execute_with(sql.END_RUNS_OF_CHILDREN, _refused(without_row, written))
    return written, [id_ for id_, _ in ended]


def _insert_beginnings(records: Collection[RunRecord]) -> list[UUID]:
    """Write the rows of runs whose process was killed, unless the rows say more already.

    End those that nobody else ends, and return the ids of their rows.
    """
    _upsert_runs(records, sql.INSERT_BEGINNINGS, sql.INSERT_FURTHER_BEGINNINGS)
    _insert_tasks_of_unfinished(records)
    gone = [record for record in records if record.is_gone]
    ended = [id_ for (id_,) in _execute_with(sql.END_GONE_RUNS, gone)]
    _keep_errors_longer(ended)
    return ended


def _keep_errors_longer(ended: Collection[UUID]) -> None:
    """Let those of these runs expire later that are errors now, but were none when they began."""
    if (days := conf().ERRORS_KEPT_LONGER_DAYS) and ended:
        errors = TaskRun.objects.using(conf().DATABASE).filter(pk__in=ended, status=Status.ERROR)
        errors.update(expires=F("expires") + timedelta(days=days))


# Tasks.


def _upsert_tasks(ends: Iterable[RunRecord]) -> None:
    """Write these ends to their tasks, where none shows a later run."""
    latest = _standing(ends, _uuid, facts_of_task, task_replaces)
    _execute_with(sql.UPSERT_SYSTEM_TASKS, latest)
    _remember_rows_of(latest)


def _insert_tasks_of_unfinished(records: Iterable[RunRecord]) -> None:
    """Insert the tasks of the queued and running ones among these runs, if they have no row."""
    unfinished = [record for record in records if record.finish_timestamp is None]
    without_row = [record for record in unfinished if _uuid(record) not in _tasks_with_row]
    _insert_tasks(
        sql.INSERT_TASKS_OF_UNFINISHED_RUNS, [(record, record.expires) for record in without_row]
    )
    _remember_rows_of(without_row)


def _insert_tasks(
    statement: Statement, tasks: Collection[tuple[RunRecord | KnownTask, datetime | None]]
) -> None:
    """Insert rows of tasks of which no run has ended, each with its time of expiry."""
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


def _show_runs(ids: list[UUID]) -> None:
    """Copy the runs with these ids to their tasks, where none shows a later run."""
    if ids:
        _execute(sql.SHOW_RUNS, ids)


def _delete_tasks_of_first_uids(ends: Iterable[RunRecord]) -> None:
    """Delete the tasks under which these runs started before they set another uid."""
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


# The choice of records.


def _standing_runs(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return one record of each execution, the one that no other replaces.

    A record that a message was sent is left out if there is one of an execution of it.
    """
    standing = _standing(records, _key, stage_of, run_replaces)
    begun = {_message(record) for record in standing if record.execution}
    return [r for r in standing if r.execution or _message(r) not in begun]


def _standing(
    records: Iterable[RunRecord],
    key_of: Callable[[RunRecord], Hashable],
    facts_of: Callable[[RunRecord], Facts],
    replaces: Callable[[Facts, Facts], bool],
) -> list[RunRecord]:
    """Return one record of each key: the one that remains if they are written in order."""
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
    """Return the ends that may be written to their tasks.

    An end that another may replace counts only if it was written to its row (`standing`).
    """
    replaceable = [r for r in standing if r.finish_timestamp and _is_replaceable(r)]
    final = [r for r in records if r.finish_timestamp and not _is_replaceable(r)]
    return replaceable + final


def _refused(records: Iterable[RunRecord], written: Iterable[RunRecord]) -> list[RunRecord]:
    """Return the replaceable ends that were not written, because another process's row stands."""
    keys = set(map(_key, written))
    return [
        record
        for record in records
        if record.finish_timestamp and _is_replaceable(record) and _key(record) not in keys
    ]


def _is_replaceable(record: RunRecord) -> bool:
    """Return True for an end that another process's final end replaces."""
    return record.provisional or record.from_main_process


def _unsaved(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return the successful runs that their task's options do not keep."""
    return [record for record in records if not record.save_run]


def _message(record: RunRecord) -> tuple[str, str, int]:
    """Return what two records of the same message share."""
    return record.id, record.celery_id, record.attempt


def _key(record: RunRecord) -> Key:
    return record.execution or record.id


def _uuid(record: RunRecord | KnownTask) -> UUID:
    return system_task_uuid(record.name, record.uid)


# Execution of statements.

_VALUES: Mapping[str, Callable[[Any], object]] = {
    "uuid": _uuid,
    "system_task_id": _uuid,
    # A row keeps its lease until its final end, and none follows that of the main process.
    "lease": lambda record: None if record.from_main_process else record.lease,
}
"""Functions for the columns that are no attribute of a record."""

_JSON_COLUMNS = {"args", "kwargs", "context", "messages", "sent_options"}
"""The columns whose values are JSON texts already."""


def _execute_with(
    statement: Statement, records: Collection[RunRecord] | Collection[ScheduleRecord]
) -> list[Any]:
    """Execute a statement with these records, and return its rows. Do nothing without records."""
    if not records:
        return []
    own = [name for name in statement.columns if name not in _VALUES]
    values_of = attrgetter(*own)
    json = [name for name in own if name in _JSON_COLUMNS]
    other = [(name, _VALUES[name]) for name in statement.columns if name in _VALUES]
    rows = []
    for record in records:
        # What is left out is NULL, and need not be read by Postgres.
        values = zip(own, values_of(record), strict=True)
        row = {name: value for name, value in values if value is not None}
        for name in json:
            if name in row:
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
    connect(connection)
    # Unlike Django's own cursor, this one binds parameters on the server, so Postgres need not
    # parse a batch as SQL. With the connection's prepare_threshold it also keeps the plan, and
    # planning takes longer than writing a few rows.
    with connection._prepare_cursor(psycopg.Cursor(connection.connection)) as cursor:
        cursor.execute(statement.text, [value])
        return cursor.fetchall() if cursor.description else []
