"""Count this app's own failures, and log each kind with its traceback at most once a minute.

The counts are those of this process since its start. A forked child starts at 0.
"""

import os
import threading
import time
from collections import Counter

from systemtasks.own_logger import own_logger

logger = own_logger(__name__)

REPORT_INTERVAL = 60.0
"""The minimum time, in seconds, between two reports of the same kind of failure."""


class Failures:
    """Counts failures by their kind. Any thread may use it."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Set all counts to 0."""
        # Reentrant, because the garbage collector may run here, and a finalizer may fail.
        self._lock = threading.RLock()
        self._counts: Counter[str] = Counter()
        self._next_reports: dict[str, float] = {}

    def counts(self) -> dict[str, int]:
        """Return the number of failures of each kind."""
        with self._lock:
            return dict(self._counts)

    def count(self, kind: str) -> None:
        """Count a failure that the caller logs."""
        with self._lock:
            self._counts[kind] += 1

    def report(self, kind: str) -> None:
        """Count the exception that is being handled, and log it with its traceback.

        At most one exception of each kind is logged in a minute.
        """
        now = time.monotonic()
        with self._lock:
            self._counts[kind] += 1
            count = self._counts[kind]
            if now < self._next_reports.get(kind, now):
                return
            self._next_reports[kind] = now + REPORT_INTERVAL
        event = "Failure %d of this kind in the recorder: %s"
        logger.error(event, count, kind, exc_info=True)  # noqa: LOG014 - the caller handles one


failures = Failures()
"""The failures of this process."""

os.register_at_fork(after_in_child=failures.reset)
