"""Waits for runs to end: one connection a process hears of it, however many wait."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import connections

from systemtasks.conf import conf
from systemtasks.models import TaskRun
from systemtasks.states import UNFINISHED

CHANNEL = "systemtasks_taskrun"
"""What the trigger on the runs notifies, of migration 0003."""

LONGEST = 60
"""Seconds that one request may wait."""

PATIENCE = 5.0
"""Seconds after which a waiting thread looks for itself, should the connection have been lost."""


class Ears:
    """Listens while somebody waits, and wakes all who do."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.waiting = 0
        """How many wait."""
        self.heard = 0
        """How many notifications there were."""
        self._thread: threading.Thread | None = None

    @contextmanager
    def seat(self) -> Iterator[bool]:
        """Whether there is room for one more to wait, which is taken until the block ends."""
        with self._changed:
            free = self.waiting < conf().MOST_WAITING
            self.waiting += free
            if free and self._thread is None:
                self._thread = threading.Thread(target=self._listen, daemon=True)
                self._thread.start()
        try:
            yield free
        finally:
            with self._changed:
                self.waiting -= free

    def wait(self, heard: int, seconds: float) -> None:
        """Wait until there was another notification than those, or until the seconds are over."""
        with self._changed:
            self._changed.wait_for(lambda: self.heard != heard, seconds)

    def _wake(self) -> None:
        with self._changed:
            self.heard += 1
            self._changed.notify_all()

    def _listen(self) -> None:
        try:
            parameters: dict[str, Any] = connections[TaskRun.objects.db].get_connection_params()
            for name in ("cursor_factory", "context", "prepare_threshold"):
                parameters.pop(name, None)
            with psycopg.connect(**parameters, autocommit=True) as connection:
                connection.execute(f"LISTEN {CHANNEL}")
                self._wake()  # whoever looked before this may have missed something
                while self._is_needed():
                    for _ in connection.notifies(timeout=1.0, stop_after=1):
                        self._wake()
        except psycopg.Error:
            # Whoever waits looks again by itself; the next one to wait begins anew.
            with self._changed:
                self._thread = None

    def _is_needed(self) -> bool:
        with self._changed:
            if not self.waiting:
                self._thread = None
            return self._thread is not None


ears = Ears()
"""This process's."""


def wait_for_end(run_id: int, seconds: float) -> None:
    """Return when the run has ended or is gone, at the latest after so many seconds.

    At once where as many wait as may.
    """
    deadline = time.monotonic() + seconds
    unfinished = TaskRun.objects.filter(id=run_id, state__in=UNFINISHED).exists
    with ears.seat() as free:
        while free:
            heard = ears.heard
            left = deadline - time.monotonic()
            if left <= 0 or not unfinished():
                return
            ears.wait(heard, min(left, PATIENCE))
