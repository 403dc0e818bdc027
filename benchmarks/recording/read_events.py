"""Reads a worker's events into memory, as Flower does; says at its end how many tasks it saw."""

import signal
from types import FrameType
from typing import NoReturn

from celery.events.receiver import EventReceiver
from celery.events.state import State

from config.celery import app


def leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit


def main() -> None:
    signal.signal(signal.SIGTERM, leave)
    state = State()
    with app.connection() as connection:
        receiver = EventReceiver(connection, app=app, handlers={"*": state.event})
        print("reading", flush=True)
        try:
            receiver.capture(limit=None, timeout=None, wakeup=True)
        finally:
            print(state.task_count)
