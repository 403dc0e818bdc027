"""Every statement that writes rows; the writer's thread runs them.

A row of an attempt goes from queued to running to finished, whatever the order in which the
processes that know of it write: an older record never overwrites a newer one.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import psycopg
from django.db import IntegrityError, connections, transaction
from psycopg.errors import ForeignKeyViolation, UniqueViolation

from systemtasks.conf import conf
from systemtasks.ids import system_task_uuid
from systemtasks.runs.messages import not_run_yet
from systemtasks.runs.records import KnownTask, RunRecord

SYSTEM_TASK_COLUMNS = {
    "uuid": "uuid",
    "name": "text",
    "uid": "text",
    "description": "text",
    "start_timestamp": "timestamptz",
    "finish_timestamp": "timestamptz",
    "duration": "float8",
    "status": "text",
    "messages": "jsonb",
    "expires": "timestamptz",
}
TASK_RUN_COLUMNS = {
    "system_task_id": "uuid",
    "celery_id": "text",
    "attempt": "int4",
    "state": "text",
    "status": "text",
    "queue": "text",
    "worker": "text",
    "sent_timestamp": "timestamptz",
    "eta_timestamp": "timestamptz",
    "start_timestamp": "timestamptz",
    "finish_timestamp": "timestamptz",
    "wait": "float8",
    "duration": "float8",
    "args": "jsonb",
    "kwargs": "jsonb",
    "arguments_intact": "bool",
    "exception": "text",
    "messages": "jsonb",
    "expires": "timestamptz",
    "sender": "text",
    "parent_id": "text",
    "root_id": "text",
    "context": "jsonb",
    "lease": "uuid",
}
LOST_COLUMNS = {
    name: TASK_RUN_COLUMNS[name]
    for name in (
        *("celery_id", "attempt", "state", "status", "finish_timestamp"),
        *("exception", "messages", "expires"),
    )
} | {"lost": "uuid"}
UNSURE_COLUMNS = {
    name: TASK_RUN_COLUMNS[name] for name in ("celery_id", "attempt", "start_timestamp", "messages")
}

_OF_SYSTEM_TASK = {"uuid", "system_task_id"}
_JSON = {"messages", "context", "args", "kwargs"}

NEVER_RAN = "{table}.status = 'unknown' AND {table}.duration = 0"


def _given(columns: dict[str, str], name: str) -> str:
    """The rows that a statement is given, as one parameter: JSON costs least to send."""
    kinds = ", ".join(f"{column} {kind}" for column, kind in columns.items())
    return f"json_to_recordset(%s::json) AS {name} ({kinds})"


def _upsert(
    table: str,
    columns: dict[str, str],
    key: tuple[str, ...],
    newer: str,
    *,
    more: dict[str, str],
    follows: tuple[str, ...] = (),
    returning: tuple[str, ...] = (),
) -> str:
    # Rows are locked in the order of their key, so that two workers' batches never deadlock. For
    # the same reason no unique column is set anew, neither the key nor what follows from it: that
    # would lock a task's row against the foreign keys of runs that others insert.
    names = ", ".join([*columns, *more])
    values = ", ".join([*columns, *more.values()])
    changing = [name for name in (*columns, *more) if name not in (*key, *follows)]
    updates = ", ".join(f"{name} = EXCLUDED.{name}" for name in changing)
    keys = ", ".join(key)
    return (
        f"INSERT INTO {table} AS old ({names}) "  # noqa: S608 - all of it is our own words
        f"SELECT {values} FROM {_given(columns, 'new')} ORDER BY {keys} "
        f"ON CONFLICT ({keys}) DO UPDATE SET {updates} WHERE {newer}"
        + (f" RETURNING {', '.join(returning)}" if returning else "")
    )


UPSERT_SYSTEM_TASKS = _upsert(
    "systemtasks_systemtask",
    SYSTEM_TASK_COLUMNS,
    ("uuid",),
    f"old.start_timestamp <= EXCLUDED.start_timestamp OR {NEVER_RAN.format(table='old')}",
    more={},
    follows=("name", "uid"),
)

# A redelivered task runs again under the same Celery id and attempt: the later run stands. What a
# worker's main process says of a run starts before what the child says of it: the child stands.
UPSERT_TASK_RUNS = _upsert(
    "systemtasks_taskrun",
    TASK_RUN_COLUMNS,
    ("celery_id", "attempt"),
    # Whatever is known follows what is only queued.
    "(old.start_timestamp IS NULL AND EXCLUDED.start_timestamp IS NOT NULL) "
    # What is running, or was taken for lost, is followed by all that began no earlier,
    "OR (old.start_timestamp <= EXCLUDED.start_timestamp AND (old.seen_timestamp IS NOT NULL "
    # and what has ended by an end that is as sure,
    "OR (EXCLUDED.finish_timestamp IS NOT NULL "
    "AND (old.lease IS NOT NULL OR EXCLUDED.lease IS NULL)))) "
    # or by a run that begins after that.
    "OR old.finish_timestamp < EXCLUDED.start_timestamp",
    # By the database's clock, as every lease is.
    more={"seen_timestamp": "CASE WHEN state = 'running' THEN now() END"},
    returning=("celery_id", "attempt"),
)

_UNRUN_COLUMNS = {
    name: SYSTEM_TASK_COLUMNS[name]
    for name in ("uuid", "name", "uid", "description", "messages", "expires")
}
INSERT_UNRUN = (
    "INSERT INTO systemtasks_systemtask "  # noqa: S608
    f"({', '.join(_UNRUN_COLUMNS)}, start_timestamp, finish_timestamp, duration, status) "
    f"SELECT {', '.join(_UNRUN_COLUMNS)}, now(), now(), 0, 'unknown' "
    f"FROM {_given(_UNRUN_COLUMNS, 'new')} WHERE {{condition}} ORDER BY uuid ON CONFLICT DO NOTHING"
)
# Of a row that is there it would wait for whoever updates it, even though it does nothing to it.
INSERT_SENT = INSERT_UNRUN.format(
    condition="NOT EXISTS (SELECT FROM systemtasks_systemtask AS old WHERE old.uuid = new.uuid)"
)
# A task whose runs have uids of their own is known by those.
INSERT_KNOWN = INSERT_UNRUN.format(
    condition="new.uid <> '' OR NOT EXISTS "
    "(SELECT FROM systemtasks_systemtask AS old WHERE old.name = new.name)"
)

DELETE_UNRUN = f"""
    DELETE FROM systemtasks_systemtask AS task
    WHERE task.uuid = ANY(%s) AND {NEVER_RAN.format(table="task")}
    AND NOT EXISTS (SELECT FROM systemtasks_taskrun AS run WHERE run.system_task_id = task.uuid)
"""  # noqa: S608

# A run whose success is not kept has a row while it is in progress, in case its worker vanishes.
_KEY_COLUMNS = {name: TASK_RUN_COLUMNS[name] for name in ("celery_id", "attempt")}
DELETE_UNSAVED = f"""
    DELETE FROM systemtasks_taskrun AS run USING {_given(_KEY_COLUMNS, "unsaved")}
    WHERE run.celery_id = unsaved.celery_id AND run.attempt = unsaved.attempt
    AND run.finish_timestamp IS NULL
"""  # noqa: S608

CLOSE_LOST = f"""
    UPDATE systemtasks_taskrun AS run
    SET state = lost.state, status = lost.status, exception = lost.exception,
        finish_timestamp = greatest(lost.finish_timestamp, run.start_timestamp),
        duration = greatest(extract(epoch FROM lost.finish_timestamp - run.start_timestamp), 0),
        messages = run.messages || lost.messages, expires = lost.expires,
        lease = NULL, seen_timestamp = NULL
    FROM {_given(LOST_COLUMNS, "lost")}
    WHERE run.celery_id = lost.celery_id AND run.attempt = lost.attempt AND run.lease = lost.lost
    RETURNING run.id, run.celery_id, run.attempt
"""  # noqa: S608

# The main process may be the first to tell of an end; what the child heard is worth keeping. Its
# start is a little later than what the main process knows.
ADD_MESSAGES = f"""
    UPDATE systemtasks_taskrun AS run
    SET messages = CASE WHEN run.messages @> unsure.messages THEN run.messages
        ELSE unsure.messages || run.messages END
    FROM {_given(UNSURE_COLUMNS, "unsure")}
    WHERE run.celery_id = unsure.celery_id AND run.attempt = unsure.attempt
    AND run.lease IS NULL AND run.start_timestamp < unsure.start_timestamp
    AND run.finish_timestamp >= unsure.start_timestamp
    RETURNING run.id, run.celery_id, run.attempt
"""  # noqa: S608

REAP = """
    UPDATE systemtasks_taskrun AS run
    SET state = 'failure', status = 'error', exception = end_of.event,
        finish_timestamp = greatest(run.seen_timestamp, run.start_timestamp),
        duration = greatest(extract(epoch FROM run.seen_timestamp - run.start_timestamp), 0),
        expires = run.expires + (greatest(run.seen_timestamp, run.start_timestamp)
            - run.start_timestamp),
        messages = run.messages || jsonb_build_array(jsonb_build_object(
            'timestamp', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            'log_level', 'error', 'logger', end_of.name, 'event', end_of.event,
            'attributes', jsonb_build_object(
                'worker', run.worker, 'last_sign_of_life', end_of.seen)))
    FROM (
        SELECT run.id, task.name, said.seen, format(
            'The worker %%s is gone: its last sign of life was at %%s',
            coalesce(nullif(run.worker, ''), 'that ran it'), said.seen) AS event
        FROM systemtasks_taskrun AS run
        JOIN systemtasks_systemtask AS task ON task.uuid = run.system_task_id,
        LATERAL (SELECT to_char(
            run.seen_timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS seen) AS said
        WHERE run.lease IS NOT NULL AND run.state = 'running'
        AND run.seen_timestamp < now() - make_interval(secs => %s)
        ORDER BY run.id FOR UPDATE OF run SKIP LOCKED
    ) AS end_of
    WHERE run.id = end_of.id
    RETURNING run.id
"""

# A run that was taken for lost is running after all.
RENEW = """
    UPDATE systemtasks_taskrun
    SET seen_timestamp = now(), state = 'running', status = 'unknown', exception = '',
        finish_timestamp = NULL, duration = NULL,
        expires = expires - coalesce(finish_timestamp - start_timestamp, interval '0'),
        messages = CASE WHEN state = 'running' THEN messages ELSE messages - -1 END
    WHERE lease = %s::uuid AND seen_timestamp IS NOT NULL
"""

TELL_SYSTEM_TASKS = f"""
    UPDATE systemtasks_systemtask AS task
    SET start_timestamp = run.start_timestamp, finish_timestamp = run.finish_timestamp,
        duration = run.duration, status = run.status, messages = run.messages,
        expires = run.expires
    FROM (
        SELECT DISTINCT ON (system_task_id) * FROM systemtasks_taskrun
        WHERE id = ANY(%s) ORDER BY system_task_id, start_timestamp DESC
    ) AS run
    WHERE task.uuid = run.system_task_id
    AND (task.start_timestamp <= run.start_timestamp OR {NEVER_RAN.format(table="task")})
"""  # noqa: S608

NEVER = datetime.min.replace(tzinfo=UTC)
KNOWN_LIMIT = 10_000
_known: set[UUID] = set()
"""SystemTasks that have a row, as far as this process knows; not more than about KNOWN_LIMIT."""


def write(records: Sequence[RunRecord]) -> None:
    """Write these records in one transaction.

    Raises what the database raises, and then has written none of them.
    """
    for last in (False, False, True):
        try:
            with transaction.atomic(using=conf().DATABASE):
                _write(records)
        except IntegrityError as error:
            # ON CONFLICT looks at one unique index: where two processes insert a new task at the
            # same moment, the other index may refuse it. Now that row is there to be updated.
            # And a task that was known may have been deleted.
            if last or not isinstance(error.__cause__, UniqueViolation | ForeignKeyViolation):
                raise
            _known.clear()
        else:
            return


def announce(tasks: Collection[KnownTask]) -> None:
    """Give these tasks a row that says that they have not run yet, where they have none."""
    _insert_unrun(INSERT_KNOWN, [(task, None) for task in tasks])


def renew(lease: str) -> None:
    """Say that the worker with this lease is alive, and with it every run that it has begun."""
    _execute(RENEW, lease)


def reap(lease: float) -> int:
    """End the runs whose worker has given no sign of life for so many seconds; how many."""
    with transaction.atomic(using=conf().DATABASE):
        ended = [row[0] for row in _execute(REAP, lease)]
        _tell_system_tasks(ended)
    return len(ended)


def _write(records: Sequence[RunRecord]) -> None:
    # A child's words first, so that what the main process says of its end finds them.
    runs = _latest((record for record in records if not record.lost), _key)
    lost = _latest((record for record in records if record.lost), _key)
    written = _upsert_runs(runs)
    told = _tell(ADD_MESSAGES, _too_late(runs, written), UNSURE_COLUMNS)
    closed = _tell(CLOSE_LOST, lost, LOST_COLUMNS)
    first = [record for record in lost if _key(record) not in closed.values()]
    written += (new := _upsert_runs(first))
    # Where a child has written what it knows of an end between those two, that can be closed now.
    closed |= _tell(CLOSE_LOST, _too_late(first, new), LOST_COLUMNS)

    # A sure end counts for its task, even if a later run of the same id has its row by now.
    ended = [record for record in records if record.finish_timestamp and _is_sure(record)]
    ended += [record for record in written if record.finish_timestamp and not _is_sure(record)]
    ended += [record for record in runs if not record.save_run and not _is_sure(record)]
    tasks = _latest(ended, _uuid)
    if tasks:
        _execute(UPSERT_SYSTEM_TASKS, _given_records(tasks, SYSTEM_TASK_COLUMNS))
    unfinished = [record for record in runs if record.finish_timestamp is None]
    unrun = [(record, record.expires) for record in unfinished if _uuid(record) not in _known]
    _insert_unrun(INSERT_SENT, unrun)
    _tell_system_tasks([*told, *closed])
    if len(_known) > KNOWN_LIMIT:
        _known.clear()
    _known.update(map(_uuid, (*tasks, *unfinished)))
    _forget_first_uids([record for record in ended if record.uid != record.first_uid])


def _is_sure(record: RunRecord) -> bool:
    """Whether nobody knows this run's end better."""
    return record.lease is None and record.lost is None


def _latest(records: Iterable[RunRecord], of: Callable[[RunRecord], Hashable]) -> list[RunRecord]:
    """Which of those that have this in common stands, by the rule by which rows are updated."""
    latest: dict[Hashable, RunRecord] = {}
    for record in records:
        other = latest.setdefault(of(record), record)
        if other is not record and _order(other) <= _order(record):
            latest[of(record)] = record
    return list(latest.values())


def _key(record: RunRecord) -> tuple[str, int]:
    """What identifies an attempt."""
    return record.celery_id, record.attempt


def _order(record: RunRecord) -> tuple[datetime, bool, bool, datetime]:
    finish = record.finish_timestamp
    return record.start_timestamp or NEVER, finish is not None, _is_sure(record), finish or NEVER


def _upsert_runs(records: Collection[RunRecord]) -> list[RunRecord]:
    """Write their rows; which of them stand now."""
    saved = [record for record in records if record.save_run]
    if len(saved) < len(records):
        unsaved = [record for record in records if not record.save_run]
        _execute(DELETE_UNSAVED, _given_records(unsaved, _KEY_COLUMNS))
    if not saved:
        return []
    # Their SystemTasks may come later in the transaction: the foreign key is a deferred one.
    keys = {*_execute(UPSERT_TASK_RUNS, _given_records(saved, TASK_RUN_COLUMNS))}
    return [record for record in saved if _key(record) in keys]


def _too_late(records: Sequence[RunRecord], written: Sequence[RunRecord]) -> list[RunRecord]:
    """The unsure ends against which the row of another process stands already."""
    unsure = [record for record in records if record.finish_timestamp and not _is_sure(record)]
    keys = set(map(_key, written))
    return [record for record in unsure if _key(record) not in keys]


def _tell(
    statement: str, records: Collection[RunRecord], columns: Mapping[str, str]
) -> dict[int, tuple[str, int]]:
    """Add these records to the rows that are there: those rows' ids, and whose they are."""
    if not records:
        return {}
    rows = _execute(statement, _given_records(records, columns))
    return {number: (celery_id, attempt) for number, celery_id, attempt in rows}


def _uuid(record: RunRecord | KnownTask) -> UUID:
    return system_task_uuid(record.name, record.uid)


def _tell_system_tasks(runs: list[int]) -> None:
    """Have the outcomes of these runs be those of their tasks."""
    if runs:
        _execute(TELL_SYSTEM_TASKS, runs)


def _insert_unrun(
    statement: str, tasks: Sequence[tuple[RunRecord | KnownTask, datetime | None]]
) -> None:
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


def _forget_first_uids(moved: Collection[RunRecord]) -> None:
    """Delete the rows that stood for these runs before their tasks said which uid they are of."""
    if moved:
        uuids = [system_task_uuid(record.name, record.first_uid) for record in moved]
        _execute(DELETE_UNRUN, uuids)
        _known.difference_update(uuids)


def _row(record: RunRecord, columns: Mapping[str, str]) -> dict[str, Any]:
    said = vars(record)
    row: dict[str, Any] = {name: said.get(name) for name in columns}
    for name in _OF_SYSTEM_TASK & columns.keys():
        row[name] = _uuid(record)
    for name in _JSON & columns.keys():
        if row[name] is not None:
            row[name] = orjson.Fragment(row[name])
    return row


def _given_records(records: Iterable[RunRecord], columns: Mapping[str, str]) -> str:
    return _json(_row(record, columns) for record in records)


def _json(rows: Iterable[dict[str, Any]]) -> str:
    return orjson.dumps(list(rows)).decode()


def _execute(statement: str, value: str | float | list[Any]) -> list[Any]:
    connection: Any = connections[conf().DATABASE]
    connection.ensure_connection()
    # Bound on the server, unlike Django's own cursor: Postgres need not read a batch as SQL, and
    # with the connection's prepare_threshold keeps the plan, which takes longer than a few rows.
    with connection._prepare_cursor(psycopg.Cursor(connection.connection)) as cursor:
        cursor.execute(statement, [value])
        return cursor.fetchall() if cursor.description else []
