"""Which of two records stands: one rule for an attempt's row, and one for a task's.

Each rule is written once, as a function of what is known of both records. Given the facts of two
records, it returns True or False. Given the facts of two rows of a statement, which are expressions
of SQL, it returns the condition in SQL.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, NamedTuple

from systemtasks.runs.records import RunRecord
from systemtasks.states import Status

NEVER = datetime.min.replace(tzinfo=UTC)
NOT_YET = datetime.max.replace(tzinfo=UTC)


class Stage(IntEnum):
    """How much is known of an attempt."""

    QUEUED = 0
    """It has been sent."""
    RUNNING = 1
    """It has begun. An orphaned run is at this stage too, since its worker may turn up."""
    PROVISIONAL = 2
    """It has ended, and another process may know better how."""
    FINAL = 3
    """It has ended."""


class RunFacts(NamedTuple):
    """What is known of an attempt: values, or expressions of SQL."""

    stage: Any
    start: Any
    """Before all other times, if it has not begun."""
    finish: Any
    """After all other times, if it has not ended."""


class TaskFacts(NamedTuple):
    """What is known of the run that a task shows: values, or expressions of SQL."""

    start: Any
    never_ran: Any


@dataclass(frozen=True, eq=False, slots=True)
class Expression:
    """A piece of SQL. To compare or combine two of them makes a larger one."""

    sql: str

    def __str__(self) -> str:
        return self.sql

    def __ge__(self, other: object) -> "Expression":
        return Expression(f"({self} >= {other})")

    def __gt__(self, other: object) -> "Expression":
        return Expression(f"({self} > {other})")

    def __and__(self, other: "Expression") -> "Expression":
        return Expression(f"({self} AND {other})")

    def __or__(self, other: "Expression") -> "Expression":
        return Expression(f"({self} OR {other})")


def run_replaces(new: RunFacts, old: RunFacts) -> Any:  # noqa: ANN401 - a bool, or an Expression
    """Return whether the new record of an attempt replaces the old one.

    It does if it begins no earlier, and either knows as much of the end or begins after the end of
    the old one. A redelivered task runs again under the same Celery id and attempt: its later run
    stands. What is only queued replaces nothing.

    The worker's main process takes a run a moment before its child begins. So a child's running or
    provisional record begins between the start and the end that the main process knows. It does not
    replace what the main process has written. The child's own final end does.
    """
    return (
        (new.stage > int(Stage.QUEUED))
        & (new.start >= old.start)
        & ((new.stage >= old.stage) | (new.start > old.finish))
    )


def task_replaces(new: TaskFacts, old: TaskFacts) -> Any:  # noqa: ANN401 - a bool, or an Expression
    """Return whether the new run replaces the one that a task shows.

    It does if it begins no earlier, and if the task shows only that it has not run yet.
    """
    return (new.start >= old.start) | old.never_ran


def facts_of_run(record: RunRecord) -> RunFacts:
    """Return the facts of a record, for `run_replaces`."""
    if record.start_timestamp is None:
        stage = Stage.QUEUED
    elif record.finish_timestamp is None:
        stage = Stage.RUNNING
    elif record.provisional:
        stage = Stage.PROVISIONAL
    else:
        stage = Stage.FINAL
    return RunFacts(stage, record.start_timestamp or NEVER, record.finish_timestamp or NOT_YET)


def facts_of_run_row(row: str) -> RunFacts:
    """Return the same facts of a row of TaskRun, which has this name in the statement.

    A lease that is renewed, one whose run may be running, has a last sign of life.
    """
    return RunFacts(
        Expression(
            f"CASE WHEN {row}.start_timestamp IS NULL THEN {Stage.QUEUED:d} "
            f"WHEN {row}.seen_timestamp IS NOT NULL THEN {Stage.RUNNING:d} "
            f"WHEN {row}.lease IS NOT NULL THEN {Stage.PROVISIONAL:d} ELSE {Stage.FINAL:d} END"
        ),
        Expression(f"coalesce({row}.start_timestamp, '-infinity')"),
        Expression(f"coalesce({row}.finish_timestamp, 'infinity')"),
    )


def facts_of_task(record: RunRecord) -> TaskFacts:
    """Return the facts of a record, for `task_replaces`."""
    return TaskFacts(record.start_timestamp or NEVER, never_ran=False)


def facts_of_task_row(row: str) -> TaskFacts:
    """Return the same facts of a row of either table, which has this name in the statement."""
    never_ran = f"({row}.status = '{Status.UNKNOWN}' AND {row}.duration = 0)"
    return TaskFacts(Expression(f"{row}.start_timestamp"), Expression(never_ran))
