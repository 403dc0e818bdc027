"""When rows whose time is over are deleted: in small batches, between the writer's own.

Each worker, and beat, does it; one of them at a time.
"""

import logging
import time
from collections.abc import Iterable

from systemtasks import rows
from systemtasks.records import KnownTask

logger = logging.getLogger(__name__)

INTERVAL = 60.0  # seconds between two looks for what has expired


class Retention:
    """Deletes for a process that knows which tasks keep their row."""

    def __init__(self) -> None:
        self._kept: list[KnownTask] | None = None
        self._next_look = 0.0
        self._deleted = 0

    def keep(self, tasks: Iterable[KnownTask]) -> None:
        """Delete from now on, but not these tasks: of a yearly one, there is something to see."""
        self._kept = [*tasks]

    def delete(self) -> bool:
        """Delete a batch, if one is due; whether there may be more of them.

        Raises what the database raises.
        """
        now = time.monotonic()
        if self._kept is None or now < self._next_look:
            return False
        deleted = rows.delete_expired(self._kept)
        self._deleted += deleted
        if deleted >= rows.EXPIRED_LIMIT:
            return True
        if self._deleted:
            logger.info("%d rows had expired, and are deleted", self._deleted)
        self._deleted = 0
        self._next_look = now + INTERVAL
        return False
