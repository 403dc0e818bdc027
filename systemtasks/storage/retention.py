"""What has expired is deleted: in small batches, between the writer's own.

Each worker, and beat, does it; one of them at a time.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, InterfaceError, OperationalError, connections, transaction
from django.db.models import Exists, Model, OuterRef, QuerySet
from django.db.models.functions import Now

from systemtasks.conf import conf
from systemtasks.ids import system_task_uuid
from systemtasks.models import SystemTask, TaskRun
from systemtasks.runs.records import KnownTask
from systemtasks.states import State

logger = logging.getLogger(__name__)

INTERVAL = 60.0  # seconds between two looks for what has expired
BATCH_LIMIT = 1_000  # rows of either table
LOCK_TIMEOUT = "1s"  # for a project's own rows, which may hang on one of these

Protected = defaultdict[type[Model], set[Any]]
"""The keys of what a project's own foreign keys protect, by its model."""


class Retention:
    """Deletes for a process that knows which tasks keep their row."""

    def __init__(self) -> None:
        self._kept: list[KnownTask] | None = None
        self._protected: Protected = defaultdict(set)
        self._next_look = 0.0
        self._deleted = 0

    def keep(self, tasks: Iterable[KnownTask]) -> None:
        """Delete from now on, but not these tasks: of a yearly one, there is to be something."""
        self._kept = [*tasks]

    def delete(self) -> bool:
        """Delete a batch, if one is due; whether there may be more of them.

        Raises OperationalError or InterfaceError where the database is away, or busy.
        """
        now = time.monotonic()
        if self._kept is None or now < self._next_look:
            return False
        self._next_look = now + INTERVAL
        try:
            deleted = delete_expired(self._kept, self._protected)
        except (OperationalError, InterfaceError):
            raise
        except Exception:  # of the project's own receivers, say
            logger.exception("What has expired is not deleted")
            return False
        self._deleted += deleted
        if deleted >= BATCH_LIMIT:
            self._next_look = now
            return True
        if self._deleted:
            logger.info("%d rows had expired, and are deleted", self._deleted)
        self._deleted = 0
        return False


def delete_expired(kept: Iterable[KnownTask], protected: Protected) -> int:
    """Delete runs that have expired, and then tasks, up to BATCH_LIMIT of each; how many.

    No run goes that is in progress, and no task that has runs left; one that is to be kept expires
    no more. What turns out to be protected becomes one of `protected`, which are passed over.
    """
    alias = conf().DATABASE
    tasks, runs = SystemTask.objects.using(alias), TaskRun.objects.using(alias)
    uuids = [system_task_uuid(task.name, task.uid) for task in kept]
    _keep(tasks.filter(pk__in=uuids))
    unused = tasks.exclude(pk__in=uuids).filter(~Exists(runs.filter(system_task=OuterRef("pk"))))
    return sum(
        _delete(rows, protected[rows.model]) for rows in (runs.exclude(state=State.RUNNING), unused)
    )


def _keep(tasks: "QuerySet[SystemTask]") -> None:
    """Have these not expire, before the next look of any process, which may not know of them."""
    with transaction.atomic(using=tasks.db):
        soon = tasks.filter(expires__lte=Now() + timedelta(seconds=2 * INTERVAL))
        tasks.filter(pk__in=_locked(soon)).update(expires=None)


def _delete(rows: "QuerySet[Any, Any]", protected: set[Any]) -> int:
    with transaction.atomic(using=rows.db):
        if not _has_turn(rows.db):
            return 0
        keys = _locked(rows.filter(expires__lte=Now()).exclude(pk__in=protected))
        return _delete_or_split(rows, keys, protected) if keys else 0


def _has_turn(alias: str) -> bool:
    """Whether no other process deletes; until the transaction ends, then, none does."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(hashtext('systemtasks.retention'))")
        turn: bool = cursor.fetchone()[0]
    return turn


def _locked(rows: "QuerySet[Any, Any]") -> list[Any]:
    """The keys of those that expire first, without those on which another process works."""
    free = rows.order_by("expires").select_for_update(skip_locked=True)
    return [*free.values_list("pk", flat=True)[:BATCH_LIMIT]]


def _delete_or_split(rows: "QuerySet[Any, Any]", keys: Sequence[Any], protected: set[Any]) -> int:
    """Delete them; a batch that fails is halved until the protected row stands alone."""
    try:
        with transaction.atomic(using=rows.db), connections[rows.db].cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            # Asked again: a task's run may have come before the lock, and none does behind it.
            deleted, _ = rows.filter(pk__in=keys).only("pk").delete()
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    except IntegrityError as error:
        if len(keys) > 1:
            middle = len(keys) // 2
            halves = keys[:middle], keys[middle:]
            return sum(_delete_or_split(rows, half, protected) for half in halves)
        logger.warning("%s has expired, and is not deleted: %s", keys[0], error)
        protected.update(keys)
        return 0
    return deleted
