"""What the signals hand to the writer, and tasks that a test makes for itself."""

import logging
from collections.abc import Callable, Iterator
from copy import copy
from itertools import count
from typing import Any

import pytest

from config.celery import app
from systemtasks import recorder, signals
from systemtasks.entries import Entry
from systemtasks.options import AnyTask
from systemtasks.recorder import Run
from systemtasks.records import RunRecord

_numbers = count(1)

MakeTask = Callable[..., AnyTask]


class Collector:
    def __init__(self) -> None:
        self.records: list[RunRecord] = []
        self.submitted: list[tuple[Entry, RunRecord]] = []
        self.watched: list[Run] = []

    def watch(self, run: Run) -> None:
        self.watched.append(run)

    def leave(self, run: Run) -> None:
        self.watched = [other for other in self.watched if other is not run]
        for entry, record in self.submitted:
            record.lease = copy(entry).record().lease  # which may be confirmed by now

    def submit(self, entry: Entry) -> None:
        record = copy(entry).record()
        self.submitted.append((entry, record))
        self.records.append(record)


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[RunRecord]]:
    collector = Collector()
    monkeypatch.setattr(signals, "writer", collector)
    logging.getLogger("shop").setLevel(logging.INFO)
    logging.getLogger("celery.task").setLevel(logging.INFO)
    signals.capture_logs()
    yield collector.records
    assert collector.watched == []
    assert recorder.current.get() is None


@pytest.fixture
def make_task() -> Iterator[MakeTask]:
    """Makes a task of a function and of options."""
    made = []

    def make(function: Callable[..., Any], **options: Any) -> AnyTask:
        name = f"tests.made_{next(_numbers)}"
        if function.__name__ == "<lambda>":
            function.__name__ = "task"  # Celery compiles it
        app.task(function, **{"name": name, "shared": False, **options})
        made.append(options.get("name", name))
        task: AnyTask = app.tasks[made[-1]]
        return task

    yield make
    for name in made:
        del app.tasks[name]
