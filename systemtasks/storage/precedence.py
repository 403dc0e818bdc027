"""Decide which of two records replaces the other: one rule for executions, one for tasks.

Each rule is one function of the facts of both records. Given the facts of two records, it returns
True or False. Given the facts of two rows of a statement, which are SQL expressions, it returns the
condition in SQL.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from systemtasks.runs.records import RunRecord


class Stage(IntEnum):
    """The progress of an execution, as a record shows it."""

    QUEUED = 0
    """Its message has been sent."""
    RUNNING = 1
    """It has started. An orphaned run is at this stage, too, since its worker may return."""
    PROVISIONAL = 2
    """It has ended, but another process may record a final end."""
    FROM_MAIN_PROCESS = 3
    """It has ended, as the worker's main process says. Its child may have known the end."""
    FINAL = 4
    """It has ended, as the process says that ran it. A row at the stage before is at this one."""


class TaskFacts(NamedTuple):
    """The facts of the run that a task shows: values, or SQL expressions."""

    order: Any
    """The start: a number or time that is greater for a later one."""
    execution: Any
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

    def __eq__(self, other: object) -> "Expression":  # type: ignore[override]
        return Expression(f"({self} = {other})")

    __hash__ = None  # type: ignore[assignment]

    def __and__(self, other: "Expression") -> "Expression":
        return Expression(f"({self} AND {other})")

    def __or__(self, other: "Expression") -> "Expression":
        return Expression(f"({self} OR {other})")


def run_replaces(new: Any, old: Any) -> Any:  # noqa: ANN401 - stages, or Expressions
    """Return True if a new record replaces an old one of the same execution, given their stages.

    It does if it is at least at the old one's stage. No clock is asked: a record that says less
    may come late, and the clocks of two processes may differ. A queued record replaces nothing.
    """
    return (new > int(Stage.QUEUED)) & (new >= old)


def task_replaces(new: TaskFacts, old: TaskFacts) -> Any:  # noqa: ANN401 - a bool, or an Expression
    """Return True if the new run replaces the one that a task shows.

    It does if it is the same run, if it started no earlier by the database's clock, or if the task
    has not run yet. So the final end of an orphaned run always replaces that of the reaper.
    """
    return (new.execution == old.execution) | (new.order >= old.order) | old.never_ran


def stage_of(record: RunRecord) -> Stage:
    """Return the stage of a record, for `run_replaces`."""
    if record.execution is None:
        return Stage.QUEUED
    if record.finish_timestamp is None:
        return Stage.RUNNING
    if record.from_main_process:
        return Stage.FROM_MAIN_PROCESS
    return Stage.PROVISIONAL if record.provisional else Stage.FINAL


def stage_of_row(row: str) -> Expression:
    """Return the stage of a row of TaskRun, as SQL; `row` is its alias in the statement.

    A row has a time of its last sign of life as long as its run may be in progress.
    """
    return Expression(
        f"CASE WHEN {row}.execution IS NULL THEN {Stage.QUEUED:d} "
        f"WHEN {row}.seen_timestamp IS NOT NULL THEN {Stage.RUNNING:d} "
        f"WHEN {row}.lease IS NOT NULL THEN {Stage.PROVISIONAL:d} ELSE {Stage.FINAL:d} END"
    )


def facts_of_task(record: RunRecord) -> TaskFacts:
    """Return the facts of a record, for `task_replaces`."""
    return TaskFacts(-(record.age or 0.0), record.execution, never_ran=False)


def facts_of_task_row(row: str) -> TaskFacts:
    """Return the same facts of a row of either table, as SQL; `row` is its alias."""
    return TaskFacts(
        Expression(f"{row}.sort_timestamp"),
        Expression(f"{row}.execution"),
        Expression(f"({row}.sort_timestamp IS NULL)"),
    )
