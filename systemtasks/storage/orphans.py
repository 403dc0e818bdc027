"""End orphaned runs: those whose worker gave no sign of life for the length of a lease.

An orphaned run ends as an error. If the worker returns, the run is in progress again.

A worker also ends those of its own runs that it has nothing more to do with, although no process
has recorded an end: a child was killed, and Celery has put its message back into the queue.
"""

import logging
import time

from systemtasks.conf import conf
from systemtasks.storage import leases, rows

logger = logging.getLogger(__name__)


class Reaper:
    """Ends the orphaned runs of all workers, in a process that renews a lease of its own."""

    def __init__(self) -> None:
        self._renewed = float("-inf")
        self._regular_since = 0.0

    def reap(self) -> None:
        """End orphaned runs, if this process has renewed its lease regularly for long enough.

        Call this after each renewal. Raise what the database raises.
        """
        now, lasts = time.monotonic(), conf().LEASE_SECONDS
        # No process could renew its lease while the database was away. Give each the time to do so.
        if now - self._renewed > lasts / 2:
            self._regular_since = now
        self._renewed = now
        if now - self._regular_since < lasts:
            return
        if ended := rows.end_orphaned_runs(lasts):
            logger.warning("%d task runs have ended with their workers", ended)
        if (own := leases.to_renew()) and (over := leases.over_for(lasts)):
            rows.end_lost_runs(own, over)
