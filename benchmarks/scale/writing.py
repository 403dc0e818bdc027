"""Measure how fast runs are written into each database, by the processor time that it takes."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from unittest import mock

from django.apps import apps
from django.db import connection

from benchmarks.recording import flow
from benchmarks.scale.asking import backend, cpu
from benchmarks.scale.databases import Database, use
from benchmarks.scale.fill import MORE_TASKS_NAME, more_task_uid
from systemtasks.conf import conf
from systemtasks.ids import new_id
from systemtasks.runs.journal_line import Entry
from systemtasks.runs.records import RunRecord
from systemtasks.states import State
from systemtasks.storage import rows
from systemtasks.storage.writer import writer

ROUNDS = 4
RUNS = 2_000
"""The runs of a round; one round before those is left out."""


@dataclass(frozen=True)
class Written:
    """The time to write a run, in microseconds."""

    own: float
    postgres: float
    clock: float

    @property
    def rate(self) -> float:
        """Return the runs a second that one processor writes."""
        return 1e6 / (self.own + self.postgres)


def entries_of(number: int) -> list[Entry]:
    """Return what the writer gets from the receivers: each run when it was sent, begins and ends.

    As those of a run that lasts, and is read by the writer's thread meanwhile.
    """
    entries: list[Entry] = []
    with (
        mock.patch.object(writer, "submit", entries.append),
        mock.patch.object(writer, "watch", lambda run: entries.append(run.in_progress())),
        mock.patch.object(writer, "unwatch"),
    ):
        for index in range(number):
            for _, step in flow.success(index):
                step()
    return entries


def _ended(runs: "Runs") -> Iterator[None]:
    """Write each run once, when it has ended."""
    yield from runs.write(State.SUCCESS)


def _step_by_step(runs: "Runs") -> Iterator[None]:
    """Write each run when it was sent, while it runs, and when it has ended."""
    yield from runs.write(State.QUEUED)
    yield from runs.write(State.RUNNING)
    yield from runs.write(State.SUCCESS)


class Runs:
    """The entries of RUNS runs, under new ids: as runs that have not been written yet."""

    def __init__(self, entries: Sequence[Entry], tasks: int = 0) -> None:
        """Take the entries. With `tasks`, each run is one of another of so many tasks."""
        self._entries = entries
        self._tasks = tasks
        self._ids = [new_id() for _ in range(RUNS)]

    def write(self, state: State) -> Iterator[None]:
        """Write the records of this state in batches, and yield after each."""
        of_state = [entry for entry in self._entries if entry.state == state]
        limit = conf().BATCH_LIMIT
        for first in range(0, RUNS, limit):
            batch = of_state[first : first + limit]
            rows.write([self._record(first + n, entry) for n, entry in enumerate(batch)])
            yield

    def _record(self, number: int, entry: Entry) -> RunRecord:
        record = entry.record()
        record.id = self._ids[number]
        if record.execution is not None:
            record.execution = record.id
        if self._tasks:
            uid = more_task_uid(hash(record.id) % self._tasks)
            record.name, record.uid, record.first_uid = MORE_TASKS_NAME, uid, uid
            record.messages = record.messages.replace("Task number", f"Task {record.id}, number")
        return record


def measure(
    empty: Database, large: Database, tasks: int
) -> Iterator[tuple[str, list[Written], list[Written]]]:
    """Yield what is written, and what a run took in both databases in each round."""
    flow.prepare()
    entries = entries_of(RUNS)
    ways = [("ended", _ended, 0), ("queued, running, ended", _step_by_step, 0)]
    if tasks:
        ways.append((f"ended, of {tasks:,} tasks with new messages", _ended, tasks))
    for name, way, of_tasks in ways:
        measured: dict[Database, list[Written]] = {empty: [], large: []}
        for number in range(ROUNDS + 1):
            empty_tables(empty)
            for database in (empty, large):
                use(database)
                rows.forget()
                written = _measured(way(Runs(entries, of_tasks)))
                if number:
                    measured[database].append(written)
        yield name, measured[empty], measured[large]


def _measured(batches: Iterator[None]) -> Written:
    process = backend()
    began = cpu(process), time.thread_time(), time.monotonic()
    for _ in batches:
        pass
    now = cpu(process), time.thread_time(), time.monotonic()
    postgres, own, clock = (end - begin for begin, end in zip(began, now, strict=True))
    return Written(own / RUNS * 1e6, postgres / 1000 / RUNS * 1e6, clock / RUNS * 1e6)


def empty_tables(database: Database) -> None:
    """Remove all runs and tasks, and what is made of them."""
    use(database)
    with connection.cursor() as cursor:
        models = apps.get_app_config("systemtasks").get_models()
        cursor.execute(f"TRUNCATE {', '.join(model._meta.db_table for model in models)}")
