"""Compare the notes of the tasks with the rows."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import dict_row

from tests.chaos.tasks import BEGUN, FINISHED

Rows = list[dict[str, Any]]

ENDS = ("SUCCESS", "FAILURE", "RETRY")

RUNS = """
    SELECT celery_id, attempt, run.execution, redelivered, state, run.status, args, kwargs,
        exception, lease, run.sort_timestamp, run.start_timestamp, run.finish_timestamp,
        run.duration, run.messages, task.name, task.uid
    FROM systemtasks_taskrun AS run JOIN systemtasks_systemtask AS task
    ON task.uuid = run.system_task_id
"""
TASKS = """
    SELECT name, uid, status, start_timestamp, finish_timestamp, duration, messages
    FROM systemtasks_systemtask
"""


class Key(NamedTuple):
    """The identity of an execution, and what is known of it."""

    celery_id: str
    attempt: int
    execution: str


class Outcome(NamedTuple):
    """The values that the row of a run that ended by itself must have."""

    name: str
    uid: str
    args: list[int]
    kwargs: dict[str, Any]
    state: str
    status: str
    exception: str
    messages: list[tuple[str, str]]
    lease: None = None


def outcome(number: int, attempt: int) -> Outcome:
    """Return the end of this attempt of `chaos.work`."""
    state, status, exception = "success", "successful", ""
    messages = [("info", f"Work on {number}")]
    if number % 10 == 1:
        status = "warning"
        messages.append(("warning", f"Careful with {number}"))
    elif number % 10 == 2:
        state, status, exception = "failure", "error", f"ValueError: {number} is no good"
        messages.append(("error", exception))
    elif number % 10 == 3 and attempt == 1:
        state, status, exception = "retry", "warning", f"ConnectionError: {number} is away"
        messages.append(("warning", f"Retry in 0 s: {exception}"))
    return Outcome("chaos.work", str(number % 7), [number], {}, state, status, exception, messages)


@dataclass
class Notes:
    """The notes of the tasks so far."""

    numbers: dict[Key, int] = field(default_factory=dict)
    finished: set[Key] = field(default_factory=set)
    ended: set[Key] = field(default_factory=set)
    """The attempts whose end must be on record."""
    begun: set[Key] = field(default_factory=set)
    """The attempts that began and were killed with their worker."""

    @classmethod
    def read(cls, folder: Path) -> "Notes":
        notes = cls()
        for path in folder.iterdir():
            for line in path.read_text().splitlines():
                celery_id, attempt, execution, number, word = line.split()
                key = Key(celery_id, int(attempt), execution)
                notes.numbers[key] = int(number)
                if word == FINISHED:
                    notes.finished.add(key)
                elif word == BEGUN:
                    notes.begun.add(key)
                elif word in ENDS:
                    notes.ended.add(key)
        return notes


def unended(keys: Collection[Key], database: str) -> list[str]:
    """Return the runs that are not on record correctly. All their workers were killed."""
    with psycopg.connect(database, row_factory=dict_row) as connection:
        runs: Rows = connection.execute(RUNS).fetchall()
    rows = {_key(run): run for run in runs}
    return [
        f"{key} has no row" if key not in rows else f"{key} is {rows[key]}"
        for key in sorted(keys)
        if key not in rows or not _is_gone(rows[key])
    ]


def _is_gone(run: dict[str, Any]) -> bool:
    worker_is_gone = re.fullmatch(
        r"The worker celery@.* is gone: its last sign of life was at .*Z", run["exception"]
    )
    ended = run["state"] == "failure" and run["status"] == "error" and run["finish_timestamp"]
    # A queued run has no arguments on record: its sender does not know the task.
    known = run["name"] == "chaos.begin" and run["kwargs"] and len(run["args"] or ()) == 1
    last = run["messages"][-1]["event"] if run["messages"] else ""
    return bool(worker_is_gone and ended and known and last == run["exception"])


def faults(notes: Notes, database: str, killed: int, *, may_be_queued: bool) -> list[str]:
    """Return the differences between the rows and the notes.

    At most `killed` children were killed, and messages may be queued or lost.
    """
    with psycopg.connect(database, row_factory=dict_row) as connection:
        runs: Rows = connection.execute(RUNS).fetchall()
        tasks: Rows = connection.execute(TASKS).fetchall()
    return [
        *_wrong_runs(notes, runs),
        *_unexplained_runs(notes, runs, killed),
        *([] if may_be_queued else _runs_to_come(runs)),
        *_wrong_tasks(runs, tasks),
    ]


def _wrong_runs(notes: Notes, runs: Rows) -> Iterator[str]:
    rows = {_key(run): run for run in runs}
    if len(rows) < len(runs):
        yield f"{len(runs) - len(rows)} executions have two rows"
    for key in sorted(notes.ended):
        expected = outcome(notes.numbers[key], key.attempt)
        if (row := rows.get(key)) is None:
            yield f"{key} has no row: {expected}"
        elif (found := _outcome(row)) != expected:
            yield f"{key} is {found}, and was {expected}"


def _unexplained_runs(notes: Notes, runs: Rows, killed: int) -> Iterator[str]:
    """Yield errors for runs with a wrong end, or none, that no killed child explains."""
    if not notes.ended <= notes.finished:
        yield f"{len(notes.ended - notes.finished)} runs ended and never finished"
    if len(cut := notes.finished - notes.ended) > killed:
        yield f"{len(cut)} runs finished and did not end, and {killed} children were killed"
    begun = [run for run in runs if run["state"] != "queued"]
    others = [run for run in begun if _key(run) not in notes.ended]
    if len(others) > killed:
        yield f"{killed} children were killed, and there are rows of other runs: {others}"
    for run in others:
        key = _key(run)
        if key not in notes.finished:
            if run["state"] == "success":
                yield f"{key} is a success, and did not finish"
        elif run["state"] == "success" and _outcome(run) != outcome(
            notes.numbers[key], key.attempt
        ):
            yield f"{key} is {_outcome(run)}, and was cut off at its end"


def _runs_to_come(runs: Rows) -> Iterator[str]:
    if queued := [run for run in runs if run["state"] == "queued"]:
        yield f"{len(queued)} runs are still to come: {queued[0]}"


def _wrong_tasks(runs: Rows, tasks: Rows) -> Iterator[str]:
    latest: dict[tuple[str, str], dict[str, Any]] = {}
    for run in runs:
        key = run["name"], run["uid"]
        if run["finish_timestamp"] and (
            key not in latest or latest[key]["sort_timestamp"] < run["sort_timestamp"]
        ):
            latest[key] = run
    for task in tasks:
        run = latest.pop((task["name"], task["uid"]), {})
        wrong = [name for name, value in task.items() if run.get(name) != value]
        if wrong:
            yield f"{task} does not show its latest run, {run}: {wrong}"
    if latest:
        yield f"There is no SystemTask for {sorted(latest)}"


def _key(run: dict[str, Any]) -> Key:
    return Key(run["celery_id"], run["attempt"], str(run["execution"]))


def _outcome(run: dict[str, Any]) -> Outcome:
    messages = [
        (message["log_level"], message["event"])
        for message in run["messages"]
        # The interpreter prints this for a SIGTERM during a __del__, and Celery redirects it.
        if message["logger"] != "celery.redirected"
    ]
    if run["redelivered"] and messages[0][1].startswith("The broker has delivered this message"):
        del messages[0]
    values = {name: run[name] for name in Outcome._fields if name != "messages"}
    if run["state"] == "success":
        # As its process had noted it before task_postrun: then it was killed, and never confirmed.
        values["lease"] = None
    return Outcome(**values, messages=messages)
