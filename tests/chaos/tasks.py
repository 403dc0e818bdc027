"""The tasks of the chaos tests. They note their progress in a file for each process.

A run has two notes. The first is the last act of the task itself: it has finished. The second is
made by a receiver of `task_postrun` that is connected after our own: the end has been recorded, or
should have been.

A run with both notes must be on record, exactly, even if any process is killed. For a run with only
the first note, the process was killed after that note: before, during or after the recording. Each
killed child explains at most one such run.
"""

import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

import billiard.pool
from celery import Task, shared_task, signals

from systemtasks.runs.journal_line import EXECUTION

logger = logging.getLogger("chaos")

FINISHED = "FINISHED"
"""The first note. The second is Celery's name of the final state."""


def note(request: Any, number: int, word: str) -> None:
    """Add a line to this process's file in one write."""
    celery_id, attempt, execution = request.id, request.retries + 1, request.get(EXECUTION)
    path = Path(os.environ["CHAOS_NOTES"]) / str(os.getpid())
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{celery_id} {attempt} {execution} {number} {word}\n".encode())
    os.close(descriptor)


@shared_task(bind=True, base=Task, name="chaos.work", systemtasks_uid=lambda number: number % 7)
def work(self: Any, number: int) -> int:
    """End in one of four ways, as the number says."""
    attempt = self.request.retries + 1
    logger.info("Work on %d", number)
    time.sleep(number % 4 / 1000)
    if number % 10 == 1:
        logger.warning("Careful with %d", number)
    note(self.request, number, FINISHED)
    if number % 10 == 2:
        raise ValueError(f"{number} is no good")
    if number % 10 == 3 and attempt == 1:
        raise self.retry(exc=ConnectionError(f"{number} is away"), countdown=0)
    return number


BEGUN = "BEGUN"
"""The note of a task that the tests kill with its worker."""


@shared_task(
    bind=True, base=Task, name="chaos.begin", systemtasks_uid=lambda number, **_: number % 7
)
def begin(self: Any, number: int, *, kills: bool) -> None:
    """Note that it has begun. Then kill its worker, or wait until it is killed."""
    note(self.request, number, BEGUN)
    if kills:
        os.killpg(0, signal.SIGKILL)  # itself, the other children and the main process
    time.sleep(60)


def note_end(task: Any, task_id: str, args: Any, state: str | None, **_: Any) -> None:
    note(task.request, args[0], str(state))


if "CHAOS_NOTES" in os.environ:
    known = [key[0] for key, _ in signals.task_postrun.receivers or ()]
    assert "systemtasks.finish" in known, "the second note would come before the record"
    signals.task_postrun.connect(note_end, weak=False)
    # A child that is shut down often waits 30 seconds for its results to be read. They never are.
    billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = 3
