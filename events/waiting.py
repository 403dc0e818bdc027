"""Wait for runs to end. One connection to Postgres serves all waiting threads of this process."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import connections

from systemtasks.background import BackgroundThread
from systemtasks.conf import conf
from systemtasks.models import TaskRun
from systemtasks.own_logger import own_logger

logger = own_logger(__name__)

CHANNEL = "systemtasks_taskrun"
"""The channel that the trigger on the table of runs notifies when one begins or ends."""

LONGEST_WAIT = 60
"""Maximum seconds that one request may wait."""

QUERY_INTERVAL = 5.0
"""Seconds after which a waiting thread asks the database itself: a notification may be lost."""

RECONNECT_INTERVAL = 5.0
"""Seconds between two tries to listen."""


class NotificationListener:
    """Listens to Postgres while threads wait, and wakes them all at each notification."""

    def __init__(self) -> None:
        self._reset()
        self._thread = BackgroundThread(
            self._listen_forever, name="run-listener", after_fork=self._reset
        )

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self.waiting = 0
        """The number of threads that wait."""
        self.notifications = 0
        """The number of notifications so far."""

    @contextmanager
    def waiter(self) -> Iterator[bool]:
        """Count this thread as waiting for the length of the block, and yield True.

        Yield False without counting it if MOST_WAITING threads wait.
        """
        with self._changed:
            admitted = self.waiting < conf().MOST_WAITING
            self.waiting += admitted
            self._changed.notify_all()
        try:
            if admitted:
                self._thread.start()
            yield admitted
        finally:
            with self._changed:
                self.waiting -= admitted

    def wait(self, notifications: int, seconds: float) -> None:
        """Wait until there are more than `notifications`, for up to `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self.notifications != notifications, seconds)

    def _wake(self) -> None:
        with self._changed:
            self.notifications += 1
            self._changed.notify_all()

    def _listen_forever(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self.waiting)
            try:
                self._listen()
            except psycopg.Error as error:
                logger.warning(
                    "Ends of runs are looked for every %d seconds: cannot listen for them (%s)",
                    QUERY_INTERVAL,
                    error,
                )
                time.sleep(RECONNECT_INTERVAL)

    def _listen(self) -> None:
        """Listen until no thread waits. Raise psycopg.Error if the connection is lost."""
        parameters: dict[str, Any] = connections[TaskRun.objects.db].get_connection_params()
        for name in ("cursor_factory", "context", "prepare_threshold"):
            parameters.pop(name, None)
        with psycopg.connect(**parameters, autocommit=True) as connection:
            connection.execute(f"LISTEN {CHANNEL}")
            self._wake()  # a run may have ended after a thread asked, and before this
            while self.waiting:
                for _ in connection.notifies(timeout=1.0, stop_after=1):
                    self._wake()


listener = NotificationListener()
"""This process's listener."""


def wait_for_end(run_id: str, seconds: float) -> None:
    """Wait for up to `seconds` until the run has ended or does not exist.

    Return at once if MOST_WAITING threads wait already.
    """
    deadline = time.monotonic() + seconds
    is_unfinished = TaskRun.objects.unfinished().filter(id=run_id).exists
    with listener.waiter() as admitted:
        while admitted:
            notifications = listener.notifications
            left = deadline - time.monotonic()
            if left <= 0 or not is_unfinished():
                return
            listener.wait(notifications, min(left, QUERY_INTERVAL))
