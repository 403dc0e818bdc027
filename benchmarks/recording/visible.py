"""Measure the time from a task's end in a worker until another connection can read its row."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection

from benchmarks.recording.modes import OURS
from benchmarks.recording.processes import TIMEOUT, run_json, worker
from benchmarks.recording.tasks import noop
from benchmarks.recording.throughput import empty
from config.celery import app

POLL_INTERVAL = 0.002  # seconds; on average, a row is seen half of it late
WARM_UP = 50  # tasks that are not measured: a child's first one connects to the database


def measure(number: int, rate: int) -> Any:  # noqa: ANN401 - a list of floats, from JSON
    """Return the seconds from each task's end to its row. `rate` tasks are sent each second."""
    with tempfile.TemporaryDirectory(dir=settings.EMBEDDED.data) as name:
        folder = Path(name) / "ends"
        folder.mkdir()
        empty()
        with worker(OURS, folder):
            return run_json("visible", str(number), str(rate), mode=OURS)


def main(number: str, rate: str) -> None:
    """Send the tasks and wait for their rows. The process has the worker's configuration."""
    app.set_current()
    total, interval = WARM_UP + int(number), 1 / float(rate)
    begin = time.monotonic()
    delays: list[float] = []
    waiting: set[str] = set()
    sent = 0
    while sent < total or waiting:
        passed = time.monotonic() - begin
        if passed > TIMEOUT:
            raise TimeoutError(f"the rows of {len(waiting)} tasks are not there")
        if sent < total and passed >= sent * interval:
            waiting.add(noop.delay(sent).id)
            sent += 1
        time.sleep(POLL_INTERVAL)
        for celery_id, delay in _finished(waiting):
            waiting.remove(celery_id)
            delays.append(delay)
    print(json.dumps(delays[WARM_UP:]))


def _finished(celery_ids: set[str]) -> list[tuple[str, float]]:
    """Return those of the runs whose rows have an end, and how many seconds ago it was."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT celery_id, finish_timestamp FROM systemtasks_taskrun "
            "WHERE celery_id = ANY(%s) AND finish_timestamp IS NOT NULL",
            [list(celery_ids)],
        )
        rows = cursor.fetchall()
    now = time.time()
    return [(celery_id, now - finish.timestamp()) for celery_id, finish in rows]
