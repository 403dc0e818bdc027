"""Drop an expired day while a writer writes, as its housekeeping does."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event, Thread

from benchmarks.recording import flow
from benchmarks.scale.databases import Database, close, use
from benchmarks.scale.writing import entries_of
from systemtasks.ids import new_id
from systemtasks.models import TaskRun
from systemtasks.runs.journal_line import Entry
from systemtasks.states import State
from systemtasks.storage import partitions, rows

RATE = 300
"""Runs a second that are written."""
INTERVAL = 0.15
"""Seconds between two batches, as the writer has by default."""
BEFORE = 10.0
"""Seconds of writing before the day is dropped, and after it."""


@dataclass(frozen=True)
class Dropped:
    """The duration of a drop, and those of the batches beside it."""

    seconds: float
    runs: int
    kept: int
    """The runs of the day that outlive it."""
    before: list[float]
    """Milliseconds of each batch before the drop."""
    during: list[float]
    """The same from the start of the drop until some seconds after it."""


def drop_a_day(database: Database) -> Dropped:
    """Drop the first day of the database while RATE runs a second are written."""
    flow.prepare()
    size = round(RATE * INTERVAL)
    number = round((2 * BEFORE + 60) / INTERVAL)
    ends = [entry for entry in entries_of(size * 60) if entry.state == State.SUCCESS]
    batches = [ends[first : first + size] for first in range(0, len(ends), size)]
    stop, taken = Event(), list[tuple[float, float]]()
    thread = Thread(target=_write, args=(database, batches, number, stop, taken), daemon=True)
    thread.start()
    time.sleep(BEFORE)
    use(database)
    day = partitions.existing()[0]
    runs = TaskRun.objects.filter(partitions.is_of([day])).count()
    began = time.monotonic()
    kept = partitions.drop(day)
    seconds = time.monotonic() - began
    time.sleep(BEFORE)
    stop.set()
    thread.join()
    return Dropped(
        seconds,
        runs,
        kept,
        [took for at, took in taken if at < began],
        [took for at, took in taken if at >= began],
    )


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value that this share of the values does not exceed."""
    return sorted(values)[min(len(values) * percent // 100, len(values) - 1)]


def _write(
    database: Database,
    batches: Sequence[Sequence[Entry]],
    number: int,
    stop: Event,
    taken: list[tuple[float, float]],
) -> None:
    """Write the batches, again and again under new ids, and note when each began and its time."""
    use(database)
    for turn in range(number):
        if stop.is_set():
            break
        batch = [entry.record() for entry in batches[turn % len(batches)]]
        for record in batch:
            record.id = record.execution = new_id()
        began = time.monotonic()
        rows.write(batch)
        took = time.monotonic() - began
        taken.append((began, took * 1000))
        stop.wait(max(INTERVAL - took, 0.0))
    close()
