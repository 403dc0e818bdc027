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
    Expression,
    Stage,
    facts_of_task_row,
    run_replaces,
    stage_of_row,
    task_replaces,
)

TYPES = {
    "age": "float8",
    "app": "text",
    "args": "jsonb",
    "arguments_intact": "bool",
    "attempt": "int4",
    "celery_id": "text",
    "context": "jsonb",
    "description": "text",
    "duration": "float8",
    "enabled": "bool",
    "entry": "text",
    "eta_timestamp": "timestamptz",
    "exception": "text",
    "execution": "uuid",
    "expires": "timestamptz",
    "finish_timestamp": "timestamptz",
    "id": "uuid",
    "kwargs": "jsonb",
    "last_sent": "timestamptz",
    "lease": "uuid",
    "messages": "jsonb",
    "name": "text",
    "next_due": "timestamptz",
    "parent_id": "text",
    "parent_run": "uuid",
    "queue": "text",
    "redelivered": "bool",
    "replaced_by": "uuid",
    "replaces": "uuid",
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


START_BY_DATABASE = "now() - make_interval(secs => given.age)"
"""The start of a run by the database's clock: the host has only to know how long ago it was."""


def _expires(skew: str) -> str:
    """Return the expiry by the database's clock, given by how much it is ahead of the host's.

    Two clocks that are right differ by less than an hour. A run keeps the time that its host gave
    it then.
    """
    return f"""given.expires + CASE WHEN abs(extract(epoch FROM {skew})) > 3600
        THEN {skew} ELSE interval '0' END"""


_EXPIRES = _expires(f"({START_BY_DATABASE} - given.start_timestamp)")


def _updates(columns: Iterable[str], unchanged: tuple[str, ...]) -> str:
    return ", ".join(f"{name} = EXCLUDED.{name}" for name in columns if name not in unchanged)


# Statements that write runs. In each, rows are locked in the order of their keys, so that the
# batches of two workers never deadlock.

_RUN_COLUMNS = (
    "system_task_id",
    "execution",
    "celery_id",
    "attempt",
    "redelivered",
    "replaces",
    "replaced_by",
    "parent_run",
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
)
_GIVEN_RUN = ("id", "age", *_RUN_COLUMNS)
_RUN_NAMES = (*_RUN_COLUMNS, "sort_timestamp", "seen_timestamp")
_SAME_MESSAGE = "{0}.celery_id = {1}.celery_id AND {0}.attempt = {1}.attempt"
_IS_OWN = "old.execution = EXCLUDED.execution"
_IS_QUEUED = f"(old.execution IS NULL AND {_SAME_MESSAGE.format('old', 'EXCLUDED')})"

# By the database's clock, like all times of leases.
_SEEN_NOW = f"CASE WHEN given.state = {_literal(State.RUNNING)} THEN now() END"


def _run_values(seen: str) -> str:
    values = {column: f"given.{column}" for column in _RUN_COLUMNS} | {"expires": _EXPIRES}
    return ", ".join((*values.values(), START_BY_DATABASE, seen))


def _set_run(updated: Mapping[str, str] | None = None) -> str:
    """Return the assignments of an update: the given values, or those in `updated`."""
    values = {name: f"EXCLUDED.{name}" for name in _RUN_NAMES}
    # The first time stands: the next one would be another by as much as the transaction waited. A
    # lost run has another time there, since it had not started.
    values["sort_timestamp"] = (
        "CASE WHEN old.start_timestamp IS NULL THEN EXCLUDED.sort_timestamp "
        "ELSE coalesce(old.sort_timestamp, EXCLUDED.sort_timestamp) END"
    )
    return ", ".join(f"{name} = {value}" for name, value in {**values, **(updated or {})}.items())


def _upsert_runs(condition: str, *, seen: str = _SEEN_NOW, setting: str = _set_run()) -> Statement:
    """Return the statement that writes runs under the ids in their messages.

    A row that there is already is set if the condition holds.
    """
    return Statement(
        f"""
        INSERT INTO systemtasks_taskrun AS old (id, {", ".join(_RUN_NAMES)})
        SELECT given.id, {_run_values(seen)}
        FROM {_given(_GIVEN_RUN)}
        ORDER BY given.id
        ON CONFLICT (id) DO UPDATE SET {setting} WHERE {condition}
        RETURNING coalesce(execution, id)::text
        """,
        _GIVEN_RUN,
    )


def _upsert_further_runs(conflict: str, *, seen: str = _SEEN_NOW) -> Statement:
    """Return the statement that writes the further executions of messages.

    `conflict` is what it does about a row that there is already.
    """
    return Statement(
        f"""
        WITH given AS (SELECT * FROM {_given(_GIVEN_RUN)}),
        further AS (
            SELECT given.*, {_SAME_MESSAGE.format("first", "given")} AS is_same
            FROM given JOIN systemtasks_taskrun AS first ON first.id = given.id
            WHERE first.execution IS DISTINCT FROM given.execution
        ),
        counted AS (
            UPDATE systemtasks_taskrun AS first SET executions = first.executions + 1
            FROM further WHERE first.id = further.id AND further.is_same AND NOT EXISTS
                (SELECT FROM systemtasks_taskrun AS own WHERE own.id = further.execution)
            RETURNING first.id, first.executions
        )
        INSERT INTO systemtasks_taskrun AS old (id, message, number, {", ".join(_RUN_NAMES)})
        SELECT given.execution, CASE WHEN given.is_same THEN given.id END,
            coalesce(counted.executions, 1), {_run_values(seen)}
        FROM further AS given LEFT JOIN counted ON counted.id = given.id
        ORDER BY given.execution
        ON CONFLICT (id) {conflict}
        RETURNING execution::text
        """,
        _GIVEN_RUN,
    )


def _replaces(new: Expression) -> str:
    """Return the condition that a record at this stage replaces the row."""
    return str(run_replaces(new, stage_of_row("old")))


_BY_PROCESS = _replaces(stage_of_row("EXCLUDED"))
_BY_MAIN_PROCESS = _replaces(Expression(f"{Stage.FROM_MAIN_PROCESS:d}"))

UPSERT_RUNS = _upsert_runs(f"({_IS_OWN} OR {_IS_QUEUED}) AND {_BY_PROCESS}")
"""Insert or update the rows of runs as their own processes report them: queued, running or ended.

A row belongs to the first execution of its message that is written. Does nothing to the row of
another execution, or if the given record does not replace the row, by the rule in `precedence.py`.
Each message may be given once. Returns the executions, or the ids of queued runs, that are written.
"""

UPSERT_RUNS_BY_MAIN_PROCESS = _upsert_runs(f"({_IS_OWN} OR {_IS_QUEUED}) AND {_BY_MAIN_PROCESS}")
"""Do the same for ends that the worker's main process reports.

Does nothing to a final end either.
"""

UPSERT_FURTHER_RUNS = _upsert_further_runs(
    f"DO UPDATE SET {_set_run()} WHERE {_IS_OWN} AND {_BY_PROCESS}"
)
"""Insert or update the rows of executions whose message's row belongs to another execution.

Their ids are those of the executions. Each is numbered when it is inserted; the row of the first
one counts them. If the row is of another message, whose id was copied, it is left alone. Does
nothing to records of the execution that has the message's row, or that do not replace their own.
Returns the executions that are written.
"""

UPSERT_FURTHER_RUNS_BY_MAIN_PROCESS = _upsert_further_runs(
    f"DO UPDATE SET {_set_run()} WHERE {_IS_OWN} AND {_BY_MAIN_PROCESS}"
)
"""Do the same for ends that the worker's main process reports.

Does nothing to a final end either.
"""

INSERT_BEGINNINGS = _upsert_runs(
    _IS_QUEUED,
    seen="given.start_timestamp",
    setting=_set_run(
        {
            # A beginning may lack the arguments, and what its message carried besides.
            "args": "coalesce(EXCLUDED.args, old.args)",
            "kwargs": "coalesce(EXCLUDED.kwargs, old.kwargs)",
            "arguments_intact": "CASE WHEN EXCLUDED.args IS NULL THEN old.arguments_intact "
            "ELSE EXCLUDED.arguments_intact END",
            # They list the types of the arguments, so both are of one record.
            "sent_options": "CASE WHEN EXCLUDED.args IS NULL "
            "THEN coalesce(old.sent_options, EXCLUDED.sent_options) "
            "ELSE coalesce(EXCLUDED.sent_options, old.sent_options) END",
        }
    ),
)
"""Insert the rows of runs of which only the beginning is known, or update queued ones.

Their beginning is their last sign of life. Does nothing to any other row: that of the same run says
more. Returns the executions that are written.
"""

INSERT_FURTHER_BEGINNINGS = _upsert_further_runs("DO NOTHING", seen="given.start_timestamp")
"""Insert the rows of beginnings whose message's row belongs to another execution.

Does nothing if there is a row. Returns the executions that are written.
"""

_OWN_ROW = "run.id = ANY (ARRAY[given.id, given.execution]) AND run.execution = given.execution"

_UNSAVED = ("id", "execution", "celery_id", "attempt")
DELETE_UNSAVED_RUNS = Statement(
    f"""
    DELETE FROM systemtasks_taskrun AS run USING {_given(_UNSAVED)}
    WHERE (({_OWN_ROW}) OR (run.id = given.id AND run.execution IS NULL
        AND {_SAME_MESSAGE.format("run", "given")}))
    AND (run.finish_timestamp IS NULL OR run.seen_timestamp IS NOT NULL)
    """,
    _UNSAVED,
)
"""Delete the rows of successful runs that their task's options do not keep.

Such a run has a row while it is in progress, in case its worker dies. It may have been ended as
orphaned meanwhile. Does nothing if there is no row, or if another process has ended it.
"""

_IS_ORPHANED = f"run.seen_timestamp IS NOT NULL AND run.state <> {_literal(State.RUNNING)}"

_END_FROM_MAIN_PROCESS = (
    "id",
    "execution",
    "state",
    "status",
    "finish_timestamp",
    "exception",
    "messages",
    "expires",
)
END_RUNS_OF_CHILDREN = Statement(
    f"""
    UPDATE systemtasks_taskrun AS run
    SET state = given.state, status = given.status, exception = given.exception,
        finish_timestamp = greatest(given.finish_timestamp, run.start_timestamp),
        duration = greatest(extract(epoch FROM given.finish_timestamp - run.start_timestamp), 0),
        messages = CASE WHEN {_IS_ORPHANED} THEN run.messages - -1 ELSE run.messages END
            || given.messages,
        expires = {_expires("(run.sort_timestamp - run.start_timestamp)")},
        lease = NULL, seen_timestamp = NULL
    FROM {_given(_END_FROM_MAIN_PROCESS)}
    WHERE {_OWN_ROW} AND run.lease IS NOT NULL
    RETURNING run.id, run.execution::text
    """,
    _END_FROM_MAIN_PROCESS,
)
"""End runs that child processes started, by the main process's ends, and keep their messages.

Removes the message that END_ORPHANED_RUNS or END_GONE_RUNS has added.

Does nothing if the child has written no row or a final end. Returns the ids and the executions of
the ended rows.
"""

_PROVISIONAL_MESSAGES = ("id", "execution", "start_timestamp", "messages")
ADD_MESSAGES_OF_CHILDREN = Statement(
    f"""
    UPDATE systemtasks_taskrun AS run
    SET messages = CASE WHEN run.messages @> given.messages THEN run.messages
        ELSE given.messages || run.messages END
    FROM {_given(_PROVISIONAL_MESSAGES)}
    WHERE {_OWN_ROW} AND run.lease IS NULL AND run.start_timestamp < given.start_timestamp
    AND run.finish_timestamp >= given.start_timestamp
    RETURNING run.id
    """,
    _PROVISIONAL_MESSAGES,
)
"""Put the messages of provisional ends that were written late before the main process's own.

A row that the main process has written starts slightly before its child's record does. Does nothing
to other rows, or if the messages are there already. Returns the ids of the matching rows.
"""


def _end_running(
    exception: str, condition: str, columns: tuple[str, ...] = (), *, keep_lease: bool = True
) -> Statement:
    """Return the statement that ends the running runs for which the condition holds, as failures.

    `exception` is what it says of them, as SQL.
    """
    lease = "" if keep_lease else ", lease = NULL, seen_timestamp = NULL"
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
                    'worker', run.worker, 'last_sign_of_life', orphaned.seen))){lease}
        FROM (
            SELECT run.id, task.name, last.seen, {exception} AS event
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


_WORKER = "coalesce(nullif(run.worker, ''), 'that ran it'), last.seen"
_WORKER_IS_GONE = f"format('The worker %%s is gone: its last sign of life was at %%s', {_WORKER})"

END_ORPHANED_RUNS = _end_running(
    _WORKER_IS_GONE, "run.seen_timestamp < now() - make_interval(secs => %s)"
)
"""End the runs whose worker has given no sign of life for this many seconds.

Keeps the lease and the last sign of life, by which RENEW_LEASE finds such a run again. Does nothing
to a row that another process has locked. Returns the ids of the ended rows.
"""

_EXECUTION = ("id", "lease", "execution")
_IS_GIVEN = f"""(run.lease, run.execution)
    IN (SELECT given.lease, given.execution FROM {_given(_EXECUTION)})"""
END_GONE_RUNS = _end_running(_WORKER_IS_GONE, _IS_GIVEN, _EXECUTION)
"""End the runs whose process is known to be gone, given their beginnings, like END_ORPHANED_RUNS.

Does nothing to a run that has ended. Returns the ids of the ended rows.
"""

END_ABANDONED_RUNS = _end_running(
    "format('The process of the worker %%s that ran it is gone: the worker''s last sign of life "
    f"was at %%s', {_WORKER})",
    _IS_GIVEN,
    _EXECUTION,
    keep_lease=False,
)
"""End the runs that a living worker has nothing more to do with, given their executions.

Such an end is final. Does nothing to runs whose process has recorded an end, and to a row that
another process has locked. Returns the ids of the ended rows.
"""

LOST_LIMIT = 1000
"""The runs that END_LOST_RUNS ends at once."""

END_LOST_RUNS = Statement(
    f"""
    UPDATE systemtasks_taskrun AS run
    SET state = {_literal(State.LOST)}, status = {_literal(State.LOST.outcome.status)},
        exception = lost.event, finish_timestamp = now(), sort_timestamp = lost.due,
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
Such a run counts from when it was due, by the clock of its sender. A run that starts after all
replaces this end. Does nothing to a row that another process has locked. Returns the ids of the
ended rows.
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

_TASK_COLUMNS = (
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
    "execution",
)
_SHOWS_IT = "old.execution = EXCLUDED.execution"
UPSERT_SYSTEM_TASKS = Statement(
    f"""
    INSERT INTO systemtasks_systemtask AS old ({", ".join(_TASK_COLUMNS)}, sort_timestamp)
    SELECT {", ".join(_TASK_COLUMNS).replace("expires", _EXPIRES)}, {START_BY_DATABASE}
    FROM {_given(("age", *_TASK_COLUMNS))}
    ORDER BY uuid
    ON CONFLICT (uuid) DO UPDATE
    SET {_updates(_TASK_COLUMNS, ("uuid", "name", "uid"))}, sort_timestamp =
        CASE WHEN {_SHOWS_IT} THEN old.sort_timestamp ELSE EXCLUDED.sort_timestamp END
    WHERE {task_replaces(facts_of_task_row("EXCLUDED"), facts_of_task_row("old"))}
    """,
    ("age", *_TASK_COLUMNS),
)
"""Insert or update the tasks of runs that have ended, to show those runs.

Does nothing to a task that shows a run which started later. Sets no unique column: that would lock
a task's row against the foreign keys of runs that others insert.
"""

SHOW_RUNS = Statement(
    f"""
    UPDATE systemtasks_systemtask AS task
    SET start_timestamp = run.start_timestamp, finish_timestamp = run.finish_timestamp,
        duration = run.duration, status = run.status, messages = run.messages,
        expires = run.expires, execution = run.execution, sort_timestamp = run.sort_timestamp
    FROM (
        SELECT DISTINCT ON (system_task_id) system_task_id, finish_timestamp, status, messages,
            expires, execution, sort_timestamp,
            coalesce(start_timestamp, sent_timestamp) AS start_timestamp,
            coalesce(duration, 0) AS duration
        FROM systemtasks_taskrun
        WHERE id = ANY(%s) ORDER BY system_task_id, sort_timestamp DESC
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

# Statements that write what is searched.

WRITE_SEARCH_TEXTS = Statement(
    """
    WITH taken AS (
        DELETE FROM systemtasks_searchchange
        WHERE id IN (SELECT id FROM systemtasks_searchchange ORDER BY id LIMIT %s)
        RETURNING uuid
    ),
    written AS (
        INSERT INTO systemtasks_searchtext AS old (uuid, document)
        SELECT uuid, text.document
        FROM systemtasks_systemtask AS task
        JOIN (SELECT DISTINCT uuid FROM taken) AS changed USING (uuid)
        LEFT JOIN systemtasks_searchtext AS old USING (uuid),
        LATERAL (SELECT systemtasks_search_document(
            task.name, task.uid, task.description, task.messages) AS document OFFSET 0) AS text
        WHERE old.document IS DISTINCT FROM text.document
        ORDER BY uuid
        ON CONFLICT (uuid) DO UPDATE SET document = EXCLUDED.document
    )
    SELECT count(*) FROM taken
    """
)
"""Write the texts of tasks that have changed, up to this number of changes, oldest first.

Does nothing to a text that is the same as before. Returns how many changes were taken.
"""

# Statements that write beat's schedule.

_ENTRY_COLUMNS = (
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
    "sent_options",
)
UPSERT_SCHEDULE = Statement(
    f"""
    INSERT INTO systemtasks_scheduleentry ({", ".join(_ENTRY_COLUMNS)})
    SELECT {", ".join(_ENTRY_COLUMNS)} FROM {_given(_ENTRY_COLUMNS)}
    ORDER BY app, entry
    ON CONFLICT (app, entry) DO UPDATE SET {_updates(_ENTRY_COLUMNS, ("app", "entry"))}
    """,
    _ENTRY_COLUMNS,
)
"""Insert or update entries of beat's schedule. Does nothing to the others."""

_SCHEDULE = "(SELECT %s::jsonb AS schedule) AS given"

KEEP_ENTRIES = Statement(
    f"""
    UPDATE systemtasks_scheduleentry AS own SET seen_timestamp = now() FROM {_SCHEDULE}
    WHERE own.app = given.schedule ->> 'app'
    AND jsonb_exists(given.schedule -> 'entries', own.entry)
    """
)
"""Record a sign of life of beat in the entries of its schedule, given the app's name and theirs.

Does nothing to other entries.
"""

DELETE_OTHER_ENTRIES = Statement(
    f"""
    DELETE FROM systemtasks_scheduleentry AS old USING {_SCHEDULE}
    WHERE old.app = given.schedule ->> 'app'
    AND NOT jsonb_exists(given.schedule -> 'entries', old.entry)
    AND (jsonb_exists(given.schedule -> 'gone', old.entry) OR old.seen_timestamp IS NULL
        OR old.seen_timestamp < now() - make_interval(secs => (given.schedule -> 'lease')::float8))
    """
)
"""Delete entries that an app's schedule no longer has: those that are `gone` from it, and those of
which no beat has given a sign of life for so many seconds (`lease`).

Does nothing to the entries of other apps, nor to those of another beat with an app of this name.
"""
