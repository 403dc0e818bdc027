"""Define the tasks: one that logs one line and records when it ended, and one that fails."""

import os
import struct
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from celery import shared_task
from celery.utils.log import get_task_logger

VARIABLE = "BENCHMARK_ENDS"
"""The environment variable with the folder for the times at which tasks end."""

_END = struct.Struct("d")

logger = get_task_logger(__name__)


@shared_task(name="benchmarks.noop")
def noop(number: int) -> None:
    """Log one line. Record the time if VARIABLE is set."""
    logger.info("Task number %d", number)
    if VARIABLE in os.environ:
        os.write(_own_file(), _END.pack(time.monotonic()))


@shared_task(name="benchmarks.fail")
def fail(number: int) -> None:
    raise ValueError(f"Task number {number} fails")


@cache
def _own_file() -> int:
    # Each child has its own, so that none waits for another.
    path = Path(os.environ[VARIABLE]) / str(os.getpid())
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def count_ends(folder: Path) -> int:
    """Return the number of tasks that have ended, by the sizes of the files."""
    return sum(path.stat().st_size for path in folder.iterdir()) // _END.size


def ends(folder: Path) -> Iterator[float]:
    """Yield when each task ended, in seconds of the monotonic clock, in any order."""
    for path in folder.iterdir():
        for (moment,) in _END.iter_unpack(path.read_bytes()):
            yield moment
