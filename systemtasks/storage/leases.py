"""Who answers for the runs in progress of this process.

A worker's main process takes a lease before it makes its children, and renews it for all of them:
a child may be busy for an hour in code that lets no other thread run.
"""

import logging
import os
import time
from dataclasses import dataclass
from uuid import uuid4

from systemtasks.conf import conf
from systemtasks.storage import rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lease:
    """Taken by one process, which renews it."""

    id: str
    """A uuid."""
    process: int
    worker: bool


_lease: Lease | None = None


def take(*, worker: bool = False) -> Lease:
    """Take a lease for this process and, if it is a worker's main one, for its children."""
    global _lease
    _lease = Lease(str(uuid4()), os.getpid(), worker)
    return _lease


def lease() -> Lease:
    """The lease under which a run that starts in this process stands."""
    if _lease is not None and (_lease.worker or _lease.process == os.getpid()):
        return _lease
    return take()


def to_renew() -> str | None:
    """The lease that this process must renew; a worker's children must not."""
    return _lease.id if _lease is not None and _lease.process == os.getpid() else None


class Keeper:
    """Renews this process's lease, and ends the runs of workers that do not renew theirs."""

    def __init__(self) -> None:
        self._renewed = float("-inf")
        self._steady_since = 0.0

    def keep(self) -> None:
        """Do what is due; raises what the database raises."""
        mine, now = to_renew(), time.monotonic()
        since, lasts = now - self._renewed, conf().LEASE_SECONDS
        if mine is None or since < lasts / 4:
            return
        rows.renew_lease(mine)
        self._renewed = now
        # While the database was away nobody could renew: give everybody the time to do so.
        if since > lasts / 2:
            self._steady_since = now
        if now - self._steady_since >= lasts and (ended := rows.end_orphaned_runs(lasts)):
            logger.warning("%d task runs have ended with their workers", ended)
