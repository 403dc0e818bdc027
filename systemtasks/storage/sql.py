"""The statements that write rows. The text below each describes it, and when it does nothing.

Each takes one parameter. For most, that is one JSON array of rows, the cheapest way to send them.
`rows.py` executes the statements.

In the texts, `old` is a row of the table that is written to, `given` is a row of the parameter, and
`run` and `task` are rows of TaskRun and SystemTask.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from systemtasks.runs.messages import level_name
from systemtasks.states import ORPHANED, State, Status
from systemtasks.storage.precedence import (
    facts_of_run_row,
    facts_of_task_row,
    run_replaces,
    task_replaces,
)

TYPES = {
    "app": "text",
    "args": "jsonb",
    "arguments_intact": "bool",
    "attempt": "int4",
    "celery_id": "text",
    "context": "jsonb",
    "description": "text",
    "duration": "float8",
    "enabled": "bool",
    "ended_lease": "uuid",
    "entry": "text",
    "eta_timestamp": "timestamptz",
    "exception": "text",
    "expires": "timestamptz",
    "finish_timestamp": "timestamptz",
    "kwargs": "jsonb",
    "last_sent": "timestamptz",
    "lease": "uuid",
    "messages": "jsonb",
    "name": "text",
    "next_due": "timestamptz",
    "parent_id": "text",
    "queue": "text",
    "root_id": "text",
    "sender": "text",
    "sent_options": "jsonb",
    "sent_timestamp": "timestamptz",
    "start_timestamp": "timestamptz",
    "state": "text",
    "status": "text",
    "system_task_id": "uuid",
    "task": "text",
    "uid": "text",
    "uuid": "uuid",
    "wait": "float8",
    "words": "text",
    "worker": "text",
}
"""The Postgres types of all columns of the rows in parameters."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement and the columns of the rows that it takes. Without columns, it takes a value."""

    text: str
    columns: tuple[str, ...] = ()


def _given(columns: Iterable[str]) -> str:
    types = ", ".join(f"{column} {TYPES[column]}" for column in columns)
    return f"json_to_recordset(%s::json) AS given ({types})"


def _literal(value: str) -> str:
    return f"'{value}'"


def _upsert(
    table: str,
    columns: tuple[str, ...],
    key: tuple[str, ...],
    replaces: object,
    *,
    computed: Mapping[str, str] | None = None,
    unchanged: tuple[str, ...] = (),
    updated: Mapping[str, str] | None = None,
    returning: tuple[str, ...] = (),
) -> Statement:
    """Return the statement that inserts rows, or updates old ones if `replaces` is true.

    `computed` maps columns that are not in the parameter to their values. `unchanged` are the
    columns that an update does not set. `updated` maps columns to the values that it sets, if they
    are not the given ones.

    Rows are locked in the order of their key, so that the batches of two workers never deadlock.
    For the same reason an update sets no unique column, such as the key: that would lock a task's
    row against the foreign keys of runs that others insert.
    """
    computed = computed or {}
    names = (*columns, *computed)
    values = {name: f"EXCLUDED.{name}" for name in names if name not in (*key, *unchanged)}
    updates = [f"{name} = {value}" for name, value in {**values, **(updated or {})}.items()]
    text = f"""
        INSERT INTO {table} AS old ({", ".join(names)})
        SELECT {", ".join((*columns, *computed.values()))}
        FROM {_given(columns)}
        ORDER BY {", ".join(key)}
        ON CONFLICT ({", ".join(key)}) DO UPDATE SET {", ".join(updates)}
        WHERE {replaces}
    """
    if returning:
        text += f"RETURNING {', '.join(returning)}"
    return Statement(text, columns)


# Statements that write runs.

UPSERT_TASK_RUNS = _upsert(
    "systemtasks_taskrun",
    (
        "system_task_id",
        "celery_id",
        "attempt",
        "state",
        "status",
        "queue",
        "worker",
        "sent_timestamp",
        "eta_timestamp",
        "start_timestamp",
        "finish_timestamp",
        "wait",
        "duration",
        "args",
        "kwargs",
        "arguments_intact",
        "exception",
        "messages",
        "expires",
        "sender",
        "parent_id",
        "root_id",
        "context",
        "sent_options",
        "lease",
    ),
    ("celery_id", "attempt"),
    run_replaces(facts_of_run_row("EXCLUDED"), facts_of_run_row("old")),
    # By the database's clock, like all times of leases.
    computed={"seen_timestamp": f"CASE WHEN state = {_literal(State.RUNNING)} THEN now() END"},
    returning=("celery_id", "attempt"),
)
"""Insert or update the rows of attempts: queued, running or ended.

Does nothing to a row that the given one does not replace, by the rule in `precedence.py`. Returns
the keys of the written rows.
"""

INSERT_BEGINNINGS = _upsert(
    "systemtasks_taskrun",
    UPSERT_TASK_RUNS.columns,
    ("celery_id", "attempt"),
    f"{run_replaces(facts_of_run_row('EXCLUDED'), facts_of_run_row('old'))} "
    "AND old.start_timestamp IS DISTINCT FROM EXCLUDED.start_timestamp",
    computed={"seen_timestamp": "start_timestamp"},
    updated={
        # A beginning may lack the arguments, and what its message carried besides.
        "args": "coalesce(EXCLUDED.args, old.args)",
        "kwargs": "coalesce(EXCLUDED.kwargs, old.kwargs)",
        "arguments_intact": "CASE WHEN EXCLUDED.args IS NULL THEN old.arguments_intact "
        "ELSE EXCLUDED.arguments_intact END",
        "sent_options": "coalesce(EXCLUDED.sent_options, old.sent_options)",
    },
)
"""Insert the rows of attempts of which only the beginning is known, or update queued ones.

Their beginning is their last sign of life. Does nothing to the row of the same run, which says
more, nor to one that the given one does not replace, by the rule in `precedence.py`.
"""

DELETE_UNSAVED_RUNS = Statement(
    f"""
    DELETE FROM systemtasks_taskrun AS run USING {_given(("celery_id", "attempt"))}
    WHERE run.celery_id = given.celery_id AND run.attempt = given.attempt
    AND (run.finish_timestamp IS NULL OR run.seen_timestamp IS NOT NULL)
    """,
    ("celery_id", "attempt"),
)
"""Delete the rows of successful runs that their task's options do not keep.

Such a run has a row while it is in progress, in case its worker dies. It may have been ended as
orphaned meanwhile. Does nothing if there is no row, or if another process has ended it.
"""

_IS_ORPHANED = f"run.seen_timestamp IS NOT NULL AND run.state <> {_literal(State.RUNNING)}"

_END_FROM_MAIN_PROCESS = (
    "celery_id",
    "attempt",
    "state",
    "status",
    "finish_timestamp",
    "exception",
    "messages",
    "expires",
    "ended_lease",
)
END_RUNS_OF_CHILDREN = Statement(
    f"""
    UPDATE systemtasks_taskrun AS run
    SET state = given.state, status = given.status, exception = given.exception,
        finish_timestamp = greatest(given.finish_timestamp, run.start_timestamp),
        duration = greatest(extract(epoch FROM given.finish_timestamp - run.start_timestamp), 0),
        messages = CASE WHEN {_IS_ORPHANED} THEN run.messages - -1 ELSE run.messages END
            || given.messages,
        expires = given.expires, lease = NULL, seen_timestamp = NULL
    FROM {_given(_END_FROM_MAIN_PROCESS)}
    WHERE run.celery_id = given.celery_id AND run.attempt = given.attempt
    AND run.lease = given.ended_lease AND run.start_timestamp <= given.finish_timestamp
    RETURNING run.id, run.celery_id, run.attempt
    """,
    _END_FROM_MAIN_PROCESS,
)
"""End runs that child processes started, by the main process's ends, and keep their messages.

Removes the message that END_ORPHANED_RUNS or END_GONE_RUNS has added.

Does nothing if the child has written no row or a final end, and if the attempt has started again,
in another worker or after the given end. Returns the ids and the keys of the ended rows.
"""

_PROVISIONAL_MESSAGES = ("celery_id", "attempt", "start_timestamp", "messages")
ADD_MESSAGES_OF_CHILDREN = Statement(
    f"""
    UPDATE systemtasks_taskrun AS run
    SET messages = CASE WHEN run.messages @> given.messages THEN run.messages
        ELSE given.messages || run.messages END
    FROM {_given(_PROVISIONAL_MESSAGES)}
    WHERE run.celery_id = given.celery_id AND run.attempt = given.attempt
    AND run.lease IS NULL AND run.start_timestamp < given.start_timestamp
    AND run.finish_timestamp >= given.start_timestamp
    RETURNING run.id, run.celery_id, run.attempt
    """,
    _PROVISIONAL_MESSAGES,
)
"""Put the messages of provisional ends that were written late before the main process's own.

A row that the main process has written starts slightly before its child's record does. Does nothing
to other rows, or if the messages are there already. Returns the ids and the keys of the matching
rows.
"""


def _end_orphaned_runs(condition: str, columns: tuple[str, ...] = ()) -> Statement:
    """Return the statement that ends the running runs for which the condition holds."""
    return Statement(
        f"""
        UPDATE systemtasks_taskrun AS run
        SET state = {_literal(ORPHANED)}, status = {_literal(ORPHANED.outcome.status)},
            exception = orphaned.event,
            finish_timestamp = greatest(run.seen_timestamp, run.start_timestamp),
            duration = greatest(extract(epoch FROM run.seen_timestamp - run.start_timestamp), 0),
            expires = run.expires
                + (greatest(run.seen_timestamp, run.start_timestamp) - run.start_timestamp),
            messages = run.messages || jsonb_build_array(jsonb_build_object(
                'timestamp', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                'log_level', {_literal(level_name(logging.ERROR))},
                'logger', orphaned.name,
                'event', orphaned.event,
                'attributes', jsonb_build_object(
                    'worker', run.worker, 'last_sign_of_life', orphaned.seen)))
        FROM (
            SELECT run.id, task.name, last.seen, format(
                'The worker %%s is gone: its last sign of life was at %%s',
                coalesce(nullif(run.worker, ''), 'that ran it'), last.seen) AS event
            FROM systemtasks_taskrun AS run
            JOIN systemtasks_systemtask AS task ON task.uuid = run.system_task_id,
            LATERAL (SELECT to_char(
                run.seen_timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS seen
            ) AS last
            WHERE run.lease IS NOT NULL AND run.state = {_literal(State.RUNNING)} AND {condition}
            ORDER BY run.id FOR UPDATE OF run SKIP LOCKED
        ) AS orphaned
        WHERE run.id = orphaned.id
        RETURNING run.id
        """,
        columns,
    )


END_ORPHANED_RUNS = _end_orphaned_runs(
    "run.seen_timestamp < now() - make_interval(secs => %s)",
)
"""End the runs whose worker has given no sign of life for this many seconds.

Keeps the lease and the last sign of life, by which RENEW_LEASE finds such a run again. Does nothing
to a row that another process has locked. Returns the ids of the ended rows.
"""

_BEGINNING = ("celery_id", "attempt", "lease", "start_timestamp")
END_GONE_RUNS = _end_orphaned_runs(
    f"""(run.celery_id, run.attempt, run.lease, run.start_timestamp)
        IN (SELECT {", ".join(_BEGINNING)} FROM {_given(_BEGINNING)})""",
    _BEGINNING,
)
"""End the runs whose process is known to be gone, given their beginnings, like END_ORPHANED_RUNS.

Does nothing if the attempt has ended, or has started again. Returns the ids of the ended rows.
"""

LOST_LIMIT = 1000
"""The runs that END_LOST_RUNS ends at once."""

END_LOST_RUNS = Statement(
    f"""
    UPDATE systemtasks_taskrun AS run
    SET state = {_literal(State.LOST)}, status = {_literal(State.LOST.outcome.status)},
        exception = lost.event, finish_timestamp = now(),
        expires = run.expires + (now() - lost.due),
        messages = run.messages || jsonb_build_array(jsonb_build_object(
            'timestamp', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            'log_level', {_literal(level_name(logging.WARNING))},
            'logger', lost.name,
            'event', lost.event,
            'attributes', jsonb_build_object('queue', run.queue)))
    FROM (
        SELECT run.id, task.name, last.due, format(
            'Sent at %%s, never started: the broker has lost it, or its worker does not record',
            to_char(run.sent_timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')) AS event
        FROM systemtasks_taskrun AS run
        JOIN systemtasks_systemtask AS task ON task.uuid = run.system_task_id,
        LATERAL (SELECT greatest(run.sent_timestamp, run.eta_timestamp) AS due) AS last
        WHERE run.status = {_literal(State.QUEUED.outcome.status)} AND run.start_timestamp IS NULL
        AND run.state = {_literal(State.QUEUED)}
        AND last.due < now() - make_interval(secs => %s)
        ORDER BY run.id LIMIT {LOST_LIMIT} FOR UPDATE OF run SKIP LOCKED
    ) AS lost
    WHERE run.id = lost.id
    RETURNING run.id
    """
)
"""End runs that were due this many seconds ago and have never started.

Nobody else will: their queue was purged, their broker was flushed, or their worker does not record.
A run that starts after all replaces this end. Does nothing to a row that another process has
locked. Returns the ids of the ended rows.
"""

RENEW_LEASE = Statement(
    f"""
    UPDATE systemtasks_taskrun
    SET seen_timestamp = now(), state = {_literal(State.RUNNING)},
        status = {_literal(State.RUNNING.outcome.status)}, exception = '',
        finish_timestamp = NULL, duration = NULL,
        expires = expires - coalesce(finish_timestamp - start_timestamp, interval '0'),
        messages = CASE WHEN state = {_literal(State.RUNNING)} THEN messages
            ELSE messages - -1 END
    WHERE lease = %s::uuid AND seen_timestamp IS NOT NULL
    """
)
"""Record a sign of life for every run under this lease. An orphaned one is running again.

Removes the message that END_ORPHANED_RUNS or END_GONE_RUNS has added. Does nothing to provisional
ends, which have the lease, too.
"""

# Statements that write tasks.

UPSERT_SYSTEM_TASKS = _upsert(
    "systemtasks_systemtask",
    (
        "uuid",
        "name",
        "uid",
        "description",
        "start_timestamp",
        "finish_timestamp",
        "duration",
        "status",
        "messages",
        "expires",
    ),
    ("uuid",),
    task_replaces(facts_of_task_row("EXCLUDED"), facts_of_task_row("old")),
    unchanged=("name", "uid"),
)
"""Insert or update the tasks of runs that have ended, to show those runs.

Does nothing to a task that shows a run which started later.
"""

SHOW_RUNS = Statement(
    f"""
    UPDATE systemtasks_systemtask AS task
    SET start_timestamp = run.start_timestamp, finish_timestamp = run.finish_timestamp,
        duration = run.duration, status = run.status, messages = run.messages,
        expires = run.expires
    FROM (
        SELECT DISTINCT ON (system_task_id) system_task_id, finish_timestamp, status, messages,
            expires, coalesce(start_timestamp, sent_timestamp) AS start_timestamp,
            coalesce(duration, 0) AS duration
        FROM systemtasks_taskrun
        WHERE id = ANY(%s)
        ORDER BY system_task_id, coalesce(start_timestamp, sent_timestamp) DESC
    ) AS run
    WHERE task.uuid = run.system_task_id
    AND {task_replaces(facts_of_task_row("run"), facts_of_task_row("task"))}
    """
)
"""Update tasks to show runs that another statement has ended or changed, given their ids.

A run that has never started counts from when it was sent. Does nothing to a task that shows a run
which started later.
"""

_TASK_THAT_NEVER_RAN = ("uuid", "name", "uid", "description", "messages", "expires")


def _insert_that_never_ran(condition: str) -> Statement:
    """Return the statement that inserts tasks which have not run, if the condition holds."""
    columns = ", ".join(_TASK_THAT_NEVER_RAN)
    return Statement(
        f"""
        INSERT INTO systemtasks_systemtask
            ({columns}, start_timestamp, finish_timestamp, duration, status)
        SELECT {columns}, now(), now(), 0, {_literal(Status.UNKNOWN)}
        FROM {_given(_TASK_THAT_NEVER_RAN)}
        WHERE {condition}
        ORDER BY uuid ON CONFLICT DO NOTHING
        """,
        _TASK_THAT_NEVER_RAN,
    )


INSERT_TASKS_OF_UNFINISHED_RUNS = _insert_that_never_ran(
    "NOT EXISTS (SELECT FROM systemtasks_systemtask AS old WHERE old.uuid = given.uuid)"
)
"""Insert the tasks of queued or running runs, whose rows refer to one.

Does nothing if the task has a row. The condition looks for it first, because ON CONFLICT alone
would wait for a transaction that is updating the row.
"""

INSERT_KNOWN_TASKS = _insert_that_never_ran(
    "given.uid <> '' OR NOT EXISTS "
    "(SELECT FROM systemtasks_systemtask AS old WHERE old.name = given.name)"
)
"""Insert tasks that are known before they run.

Does nothing if the task has a row. A task without a uid is not inserted if there is any task of its
name, because its runs may have uids.
"""

DELETE_QUEUED_RUNS_OF_TASKS = Statement(
    """
    DELETE FROM systemtasks_taskrun AS run USING systemtasks_systemtask AS task
    WHERE task.name = ANY(%s) AND run.system_task_id = task.uuid AND run.start_timestamp IS NULL
    AND run.finish_timestamp IS NULL
    """
)
"""Delete the queued runs of the tasks with these names. Does nothing to runs that have begun."""

DELETE_TASKS_OF_NAMES_THAT_NEVER_RAN = Statement(
    f"""
    DELETE FROM systemtasks_systemtask AS task
    WHERE task.name = ANY(%s) AND {facts_of_task_row("task").never_ran}
    AND NOT EXISTS (SELECT FROM systemtasks_taskrun AS run WHERE run.system_task_id = task.uuid)
    """
)
"""Delete the tasks with these names. Does nothing to one that has run, or to which a run refers."""

DELETE_TASKS_THAT_NEVER_RAN = Statement(
    f"""
    DELETE FROM systemtasks_systemtask AS task
    WHERE task.uuid = ANY(%s) AND {facts_of_task_row("task").never_ran}
    AND NOT EXISTS (SELECT FROM systemtasks_taskrun AS run WHERE run.system_task_id = task.uuid)
    """
)
"""Delete the tasks with these uuids, of runs that have set another uid since they started.

Does nothing to a task that has run, or to which a run refers.
"""

# Statements that write beat's schedule.

UPSERT_SCHEDULE = _upsert(
    "systemtasks_scheduleentry",
    (
        "app",
        "entry",
        "task",
        "uid",
        "words",
        "next_due",
        "last_sent",
        "enabled",
        "args",
        "kwargs",
        "arguments_intact",
    ),
    ("app", "entry"),
    "TRUE",
)
"""Insert or update entries of beat's schedule. Does nothing to the others."""

DELETE_OTHER_ENTRIES = Statement(
    """
    DELETE FROM systemtasks_scheduleentry AS old USING (SELECT %s::jsonb AS schedule) AS given
    WHERE old.app = given.schedule ->> 'app'
    AND NOT jsonb_exists(given.schedule -> 'entries', old.entry)
    """
)
"""Delete the entries that are not in an app's schedule, given its name and those of its entries.

Does nothing to the entries of other apps.
"""
