"""Send tasks with the worker's configuration: `send QUEUE NUMBER …`."""

from benchmarks.recording.tasks import noop
from config.celery import app


def main(*words: str) -> None:
    app.set_current()
    for queue, number in zip(words[::2], words[1::2], strict=True):
        for index in range(int(number)):
            noop.apply_async((index,), queue=queue)
