"""Fixtures: submitted records, tasks of a test, and other accounts and connections."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from config.celery import app
from systemtasks.capture.celery import signals
from systemtasks.capture.celery.options import AnyTask
from systemtasks.models import StatisticsProgress
from systemtasks.runs import recorder
from systemtasks.runs.journal_line import Entry
from systemtasks.runs.recorder import Run
from systemtasks.runs.records import RunRecord

_numbers = count(1)

MakeTask = Callable[..., AnyTask]


class Collector:
    def __init__(self) -> None:
        self.records: list[RunRecord] = []
        self.submitted: list[tuple[Entry, RunRecord]] = []
        self.watched: list[Run] = []

    def watch(self, run: Run) -> None:
        self.watched.append(run)

    def unwatch(self, run: Run) -> None:
        self.watched = [other for other in self.watched if other is not run]
        for entry, record in self.submitted:
            end = copy(entry).record()  # which may be final by now
            record.lease, record.provisional = end.lease, end.provisional

    def forget_beginning(self, run: Run) -> None: ...

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
    recorder._ended.set(None)


@pytest.fixture
def make_task() -> Iterator[MakeTask]:
    """Return a function that makes a task from a function and options."""
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


@pytest.fixture
def everything_is_counted(db: None) -> None:
    """Have all runs in the statistics, so that they may be deleted when they have expired."""
    StatisticsProgress.objects.create(folded_until=timezone.now())


@pytest.fixture
def shared() -> Iterator[Path]:
    """Yield a folder in which every account may create files."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o777)
    yield made
    shutil.rmtree(made)


@contextmanager
def another_connection(statement: str) -> Iterator[None]:
    """Execute this statement in a transaction of another connection, open until the block ends."""
    begun, over = Event(), Event()

    def hold() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)
            begun.set()
            over.wait()
        connection.close()

    thread = Thread(target=hold)
    thread.start()
    assert begun.wait(10)
    try:
        yield
    finally:
        over.set()
        thread.join()
