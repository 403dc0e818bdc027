"""What has expired is deleted: in small batches, between the writer's own.

Each worker, and beat, does it; one of them at a time.
"""

import logging
import time
from collections.abc import Iterable
from typing import Any

from django.db import IntegrityError, connections, transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.functions import Now

from systemtasks.conf import conf
from systemtasks.models import SystemTask, TaskRun, system_task_uuid
from systemtasks.records import KnownTask
from systemtasks.states import State

logger = logging.getLogger(__name__)

INTERVAL = 60.0  # seconds between two looks for what has expired
BATCH_LIMIT = 1_000  # rows of either table


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
        self._next_look = now + INTERVAL
        try:
            deleted = delete_expired(self._kept)
        except IntegrityError as error:  # a foreign key of the project's own
            logger.warning("What has expired is not deleted: %s", error)
            return False
        self._deleted += deleted
        if deleted >= BATCH_LIMIT:
            self._next_look = now
            return True
        if self._deleted:
            logger.info("%d rows had expired, and are deleted", self._deleted)
        self._deleted = 0
        return False


def delete_expired(kept: Iterable[KnownTask]) -> int:
    """Delete runs that have expired, and then tasks, at most BATCH_LIMIT of each; how many.

    No run goes that is in progress, and no task that is to be kept or has runs left. Raises
    IntegrityError where a foreign key of the project's own protects one of them.
    """
    alias = conf().DATABASE
    runs = TaskRun.objects.using(alias)
    tasks = SystemTask.objects.using(alias)
    with transaction.atomic(using=alias):
        if not _has_turn(alias):
            return 0
        old_runs = _locked(runs.exclude(state=State.RUNNING))
        runs.filter(pk__in=old_runs).delete()
        uuids = [system_task_uuid(task.name, task.uid) for task in kept]
        unused = ~Exists(runs.filter(system_task=OuterRef("pk")))
        old_tasks = _locked(tasks.filter(unused).exclude(pk__in=uuids))
        # Asked again: a run may have come before the lock, and none does behind it.
        tasks.filter(unused, pk__in=old_tasks).delete()
    return len(old_runs) + len(old_tasks)


def _has_turn(alias: str) -> bool:
    """Whether no other process deletes; until the transaction ends, then, none does."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(hashtext('systemtasks.retention'))")
        turn: bool = cursor.fetchone()[0]
    return turn


def _locked(rows: "QuerySet[Any, Any]") -> list[Any]:
    """The keys of those that expired first, without those on which another process works."""
    expired = rows.filter(expires__lte=Now()).order_by("expires")
    return [*expired.select_for_update(skip_locked=True).values_list("pk", flat=True)[:BATCH_LIMIT]]
