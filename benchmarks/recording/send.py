"""Sends tasks, in a process that is configured as the worker's: `send QUEUE NUMBER`."""

import sys

from benchmarks.recording.tasks import noop
from config.celery import app


def main(queue: str, number: str) -> None:
    app.set_current()
    for index in range(int(number)):
        noop.apply_async((index,), queue=queue)


if __name__ == "__main__":
    main(*sys.argv[1:])
