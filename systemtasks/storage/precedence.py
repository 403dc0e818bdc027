"""Decide which of two records replaces the other: one rule for attempts, one for tasks.

Each rule is one function of the facts of both records. Given the facts of two records, it returns
True or False. Given the facts of two rows of a statement, which are SQL expressions, it returns the
condition in SQL.
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
    """The progress of an attempt, as a record shows it."""

    QUEUED = 0
    """It has been sent."""
    RUNNING = 1
    """It has started. An orphaned run is at this stage, too, since its worker may return."""
    PROVISIONAL = 2
    """It has ended, but another process may record a final end."""
    FINAL = 3
    """It has ended, and no process will record another end."""


class RunFacts(NamedTuple):
    """The facts of an attempt: values, or SQL expressions."""

    stage: Any
    start: Any
    """The start, or a time before all others if it has not started."""
    finish: Any
    """The end, or a time after all others if it has not ended."""


class TaskFacts(NamedTuple):
    """The facts of the run that a task shows: values, or SQL expressions."""

    start: Any
    never_ran: Any


@dataclass(frozen=True, eq=False, slots=True)
class Expression:
    """A piece of SQL. Comparing or combining two pieces makes a larger one."""

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
    """Return True if the new record of an attempt replaces the old one.

    It must not start earlier. It must also be at least at the old one's stage, or start after the
    old one's end. The second case is a redelivered task, which runs again under the same Celery id
    and attempt: its later run replaces the earlier one. A queued record replaces nothing.

    The worker's main process starts a run slightly before its child process does. So a child's
    running or provisional record starts between the start and the end that the main process has
    written, and does not replace that end. The child's final end does.
    """
    return (
        (new.stage > int(Stage.QUEUED))
        & (new.start >= old.start)
        & ((new.stage >= old.stage) | (new.start > old.finish))
    )


def task_replaces(new: TaskFacts, old: TaskFacts) -> Any:  # noqa: ANN401 - a bool, or an Expression
    """Return True if the new run replaces the one that a task shows.

    It does if it starts no earlier, or if the task has not run yet.
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
    """Return the same facts of a row of TaskRun, as SQL; `row` is its alias in the statement.

    A row has a time of its last sign of life as long as its run may be in progress.
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
    """Return the same facts of a row of either table, as SQL; `row` is its alias."""
    never_ran = f"({row}.status = '{Status.UNKNOWN}' AND {row}.duration = 0)"
    return TaskFacts(Expression(f"{row}.start_timestamp"), Expression(never_ran))
