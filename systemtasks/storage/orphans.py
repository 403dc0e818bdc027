"""End the runs that nobody else ends.

An orphaned run, whose worker gave no sign of life for the length of a lease, ends as an error. A
lost run, which was sent and has never started, ends as a warning. If the worker returns, or the run
starts after all, it is in progress again.

A worker also ends those of its own runs that it has nothing more to do with, although no process
has recorded an end: a child was killed, and Celery has put its message back into the queue.
"""

import time

from systemtasks.conf import conf
from systemtasks.own_logger import own_logger
from systemtasks.storage import leases, rows
from systemtasks.storage.sql import LOST_LIMIT

logger = own_logger(__name__)


SEARCH_INTERVAL = 60.0  # seconds between two searches for lost runs


class Reaper:
    """Ends the orphaned and lost runs of all workers, in a process that renews its own lease."""

    def __init__(self) -> None:
        self._renewed = float("-inf")
        self._regular_since = 0.0
        self._next_search = float("-inf")

    def reap(self) -> None:
        """End orphaned runs, if this process has renewed its lease regularly for long enough.

        Call this after each renewal. Raise what the database raises.
        """
        now, lasts = time.monotonic(), conf().LEASE_SECONDS
        # No process could renew its lease while the database was away. Give each the time to do so.
        if now - self._renewed > lasts / 2:
            self._regular_since = now
        self._renewed = now
        if now - self._regular_since >= lasts:
            self._end_orphaned_runs(lasts)
        self._end_lost_runs(now)

    def _end_orphaned_runs(self, lasts: float) -> None:
        if ended := rows.end_orphaned_runs(lasts):
            logger.warning("%d task runs have ended with their workers", ended)
        if (own := leases.to_renew()) and (over := leases.over_for(lasts)):
            rows.end_abandoned_runs(own, over)

    def _end_lost_runs(self, now: float) -> None:
        days = conf().LOST_AFTER_DAYS
        if not days or now < self._next_search:
            return
        self._next_search = now + SEARCH_INTERVAL
        if ended := rows.end_lost_runs(days * 86_400):
            logger.warning("%d task runs were sent %g days ago and have never started", ended, days)
            if ended >= LOST_LIMIT:
                self._next_search = now  # there may be more
