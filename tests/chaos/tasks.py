"""The tasks of the chaos tests, which note in a file of each process what became of them.

A run has two notes. The first is the last act of the task itself: it has finished. The second is
made by a receiver of `task_postrun` that is connected behind our own: its end has been recorded,
or should have been. So a run with both is on record, and exactly so, whatever is killed. A
run with the first alone was finished by a process that was killed before, during or after its
recording, or between its note and its end: each killed child accounts for one of them at the most.
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
"""The first note; the second is Celery's word for how the run ended."""


def note(request: Any, number: int, word: str) -> None:
    """Add a line to this process's file, whole or not at all."""
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
    """Note that it has begun, and kill its worker or wait for somebody else to do so."""
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
    # A child that is shut down often waits 30 seconds for results to be read that nobody reads.
    billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = 3
