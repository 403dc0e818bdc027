"""Measure how many tasks a worker runs in a mode, and the processor time for each."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis
from django.conf import settings
from django.db import connection

from benchmarks.recording.modes import Mode
from benchmarks.recording.processes import Usage, event_reader, run, usage, wait_for_ends, worker
from benchmarks.recording.tasks import count_ends, ends
from config.celery import app

QUEUE = "measured"
SETTLE = 1.0  # seconds, for the last batch and the last event


@dataclass(frozen=True)
class Throughput:
    """The figures of one worker."""

    rate: float
    """Tasks a second, from the end of the first one to the end of the last one."""
    cpu: Usage
    """Processor time for a task, in microseconds, by process."""
    behind: int | None
    """The number of rows not yet written when the last task ended. None if the mode has no rows."""


def measure(mode: Mode, number: int, warm_up: int) -> Throughput:
    """Measure a new worker of this mode while it runs this many tasks, which are sent before."""
    seen: list[int] = []
    with tempfile.TemporaryDirectory(dir=settings.EMBEDDED.data) as name:
        folder = Path(name) / "ends"
        folder.mkdir()
        empty()
        with event_reader(mode, seen) as reader:
            first = app.conf.task_default_queue
            run("send", first, str(warm_up), QUEUE, str(number), mode=mode)
            with worker(mode, folder) as process:
                wait_for_ends(warm_up, folder, process)
                groups = {"main process": process, "event reader": reader, **services()}
                measured = _measure_tasks(mode, number, folder, groups)
    _check(mode, number + warm_up, seen)
    return measured


def _measure_tasks(
    mode: Mode, number: int, folder: Path, groups: dict[str, psutil.Process | None]
) -> Throughput:
    worker = groups["main process"]
    assert worker
    warm_up = count_ends(folder)
    time.sleep(SETTLE)
    before, begin = usage(groups), time.monotonic()
    # They wait in a queue of their own, which the worker did not read until now.
    app.control.add_consumer(QUEUE, reply=True)
    wait_for_ends(warm_up + number, folder, worker)
    behind = warm_up + number - count_rows(mode) if mode.count else None
    time.sleep(SETTLE)
    after = usage(groups)
    measured = [moment for moment in ends(folder) if moment > begin]
    return Throughput(
        rate=(number - 1) / (max(measured) - min(measured)),
        cpu={who: (after[who] - before[who]) / number * 1e6 for who in after},
        behind=behind,
    )


def empty() -> None:
    """Delete all rows and messages of the previous mode."""
    redis.Redis(unix_socket_path=str(settings.EMBEDDED.valkey_socket)).flushdb()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT string_agg(quote_ident(tablename), ', ') FROM pg_tables WHERE tablename "
            "LIKE 'systemtasks\\_%%' OR tablename LIKE 'django\\_celery\\_results\\_%%'"
        )
        (tables,) = cursor.fetchone()
        cursor.execute(f"TRUNCATE {tables}")
        cursor.execute("CHECKPOINT")


def services() -> dict[str, psutil.Process | None]:
    """Return the processes of Postgres and of the broker."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        postgres = psutil.Process(cursor.fetchone()[0]).parent()
    broker = redis.Redis(unix_socket_path=str(settings.EMBEDDED.valkey_socket))
    return {"Postgres": postgres, "broker": psutil.Process(broker.info("server")["process_id"])}


def count_rows(mode: Mode) -> int:
    """Return the number of tasks that the mode has recorded so far."""
    with connection.cursor() as cursor:
        cursor.execute(mode.count)
        return int(cursor.fetchone()[0])


def _check(mode: Mode, expected: int, seen: list[int]) -> None:
    """Raise RuntimeError if the mode has not recorded exactly these tasks."""
    recorded = count_rows(mode) if mode.count else expected
    for number in (recorded, *seen):
        if number != expected:
            raise RuntimeError(f"{mode.name}: {number} of {expected} tasks are on record")
