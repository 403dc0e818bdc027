"""Read a worker's events into memory, as Flower does. At the end, print the number of tasks."""

import signal
from types import FrameType
from typing import NoReturn

from celery.events.receiver import EventReceiver
from celery.events.state import State

from config.celery import app


def end(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit


def main() -> None:
    signal.signal(signal.SIGTERM, end)
    state = State()
    with app.connection() as connection:
        receiver = EventReceiver(connection, app=app, handlers={"*": state.event})
        print("reading", flush=True)
        try:
            receiver.capture(limit=None, timeout=None, wakeup=True)
        finally:
            print(state.task_count)
