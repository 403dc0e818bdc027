"""Take and renew leases. A process renews its lease to show that its runs are alive.

A worker's main process takes a lease before it forks its children, and renews it for all of them,
because a child may run code for an hour that lets no other thread run. `orphans.py` ends runs whose
lease is no longer renewed.
"""

import os
import time
from collections import deque
from dataclasses import dataclass
from uuid import uuid4

from systemtasks.conf import conf
from systemtasks.storage import connection, rows


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that one process has taken and must renew."""

    id: str
    """A uuid."""
    process: int
    """The id of the process that took it."""
    worker: bool
    """True if that is a worker's main process. Its children's runs are under the lease, too."""


_lease: Lease | None = None
_over: deque[tuple[float, str]] = deque(maxlen=100_000)
"""When a worker had nothing more to do with an execution, by the monotonic clock; oldest first."""


def take(*, worker: bool = False) -> Lease:
    """Take a lease for this process and, if it is a worker's main one, for its children."""
    global _lease
    if worker:
        connection.name_worker()
    _lease = Lease(str(uuid4()), os.getpid(), worker)
    return _lease


def current_lease() -> Lease:
    """Return the lease for runs that start in this process. Take one if there is none yet."""
    if _lease is not None and (_lease.worker or _lease.process == os.getpid()):
        return _lease
    return take()


def is_own(lease: str | None) -> bool:
    """Return True if runs that start in this process are under this lease."""
    if _lease is None or _lease.id != lease:
        return False
    return _lease.worker or _lease.process == os.getpid()


def to_renew() -> str | None:
    """Return the id of the lease that this process must renew, or None in a worker's child."""
    return _lease.id if _lease is not None and _lease.process == os.getpid() else None


def note_over(execution: str) -> None:
    """Note that this process has nothing more to do with an execution. Any thread may call this."""
    _over.append((time.monotonic(), execution))


def over_for(seconds: float) -> list[str]:
    """Return the executions that have been over for so many seconds, and forget them."""
    latest = time.monotonic() - seconds
    executions = []
    while _over and _over[0][0] <= latest:
        executions.append(_over.popleft()[1])
    return executions


class Renewal:
    """Renews the lease of this process."""

    def __init__(self) -> None:
        self._renewed = float("-inf")

    def renew(self) -> bool:
        """Renew the lease if this process must, and has not done so for a quarter of its length.

        Return True if it has been renewed now. Raise what the database raises.
        """
        own, now = to_renew(), time.monotonic()
        if own is None or now - self._renewed < conf().LEASE_SECONDS / 4:
            return False
        rows.renew_lease(own)
        self._renewed = now
        return True
