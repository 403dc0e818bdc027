"""Failures of this app's own: each is counted, and logged with its traceback once in a minute.

The counts are of this process, since it began; a forked child begins at 0.
"""

import logging
import os
import threading
import time
from collections import Counter

logger = logging.getLogger(__name__)

REPORT_INTERVAL = 60.0
"""Seconds at least between two reports of the same kind of failure."""


class Failures:
    """Counts failures by their kind; any thread may use it."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin at 0."""
        # Garbage may be collected anywhere, and fail to be recorded when it is.
        self._lock = threading.RLock()
        self._counts: Counter[str] = Counter()
        self._next_reports: dict[str, float] = {}

    def counts(self) -> dict[str, int]:
        """Return how many failures of each kind there were."""
        with self._lock:
            return dict(self._counts)

    def count(self, kind: str) -> None:
        """Count a failure that somebody else logs."""
        with self._lock:
            self._counts[kind] += 1

    def report(self, kind: str) -> None:
        """Count the exception that is being handled, and log it with its traceback.

        Of one kind, one a minute is logged.
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
"""This process's failures."""

os.register_at_fork(after_in_child=failures.reset)
