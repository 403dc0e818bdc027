"""Delete expired rows in small batches, between the writer's own batches.

Runs are counted before, in `folding.py`.

Runs that are kept for the usual time go with the partition of their day: see `partitions.py`.
Each worker and beat can do so, but only one process at a time does.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, InterfaceError, OperationalError, connections, transaction
from django.db.models import Exists, Model, OuterRef, Q, QuerySet
from django.db.models.functions import Now
from django.db.models.lookups import LessThanOrEqual

from systemtasks.conf import conf
from systemtasks.ids import system_task_uuid
from systemtasks.models import ROWS_OF_RUNS, ScheduleEntry, SystemTask, TaskRun, hour_of
from systemtasks.own_logger import own_logger
from systemtasks.runs.records import KnownTask
from systemtasks.storage.database import has_turn
from systemtasks.storage.folding import counted, fold_for_a_while
from systemtasks.storage.partitions import Partitions, is_of, kept_states

logger = own_logger(__name__)

INTERVAL = 60.0  # seconds between two searches for expired rows
BATCH_LIMIT = 1_000  # rows of either table
LOCK_TIMEOUT = "1s"  # for a project's own rows, which may refer to expired ones

Protected = defaultdict[type[Model], set[Any]]
"""The keys of rows that a project's own foreign keys protect, by model."""


class Retention:
    """Counts runs and deletes expired rows, once it is known which tasks keep their row."""

    def __init__(self) -> None:
        self._kept: list[KnownTask] | None = None
        self._protected: Protected = defaultdict(set)
        self._partitions = Partitions()
        self._next_look = 0.0
        self._deleted = 0

    def keep(self, tasks: Iterable[KnownTask]) -> None:
        """Start deleting, but keep the rows of these tasks. A task may run only once a year."""
        self._kept = [*tasks]

    def delete(self) -> bool:
        """Count runs and delete a batch, if it is time. Return True if there may be more to do.

        Raise OperationalError or InterfaceError if the database is away or busy.
        """
        now = time.monotonic()
        if self._kept is None or now < self._next_look:
            return False
        self._next_look = now + INTERVAL
        is_more = fold_for_a_while()
        try:
            self._partitions.keep()
            left_alone = is_of(self._partitions.left_alone)
            deleted = delete_expired(self._kept, self._protected, left_alone)
        except (OperationalError, InterfaceError):
            raise
        except Exception:  # of a receiver of the project, for example
            logger.exception("What has expired is not deleted")
            return False
        self._deleted += deleted
        if is_more or deleted >= BATCH_LIMIT:
            self._next_look = now
            return True
        if self._deleted:
            logger.info("%d rows had expired, and are deleted", self._deleted)
        self._deleted = 0
        return False


def delete_expired(
    kept: Iterable[KnownTask], protected: Protected, left_alone: Q | None = None
) -> int:
    """Delete up to BATCH_LIMIT expired runs, then as many expired tasks. Return their number.

    Of the rows that `expired` finds. The `kept` tasks and those on beat's schedule no longer
    expire. A row that turns out to be protected is added to `protected`, and is skipped from then
    on.
    """
    _keep(SystemTask.objects.using(conf().DATABASE).filter(pk__in=_kept_uuids(kept)))
    return sum(_delete(rows, protected[rows.model]) for rows in expired(kept, left_alone))


def _kept_uuids(kept: Iterable[KnownTask]) -> list[UUID]:
    """Return the uuids of these tasks, and of those on beat's schedule."""
    scheduled = ScheduleEntry.objects.using(conf().DATABASE).values_list("task", "uid")
    names = {*((task.name, task.uid) for task in kept), *scheduled}
    return [system_task_uuid(name, uid) for name, uid in names]


def expired(
    kept: Iterable[KnownTask],
    left_alone: Q | None = None,
    *,
    gone: "QuerySet[TaskRun] | None" = None,
    folded: datetime | None = None,
) -> "tuple[QuerySet[TaskRun], QuerySet[SystemTask]]":
    """Return the runs, and the tasks, that have expired and are deleted one by one, in order.

    Runs in a state of `kept_states`, runs that are not in the statistics yet, runs that meet the
    condition `left_alone`, the tasks that do not expire, and tasks that still have runs are not
    among them. `gone` are runs that will have been deleted before the tasks are, and `folded` is
    as in `counted`.
    """
    alias = conf().DATABASE
    tasks, runs = SystemTask.objects.using(alias), TaskRun.objects.using(alias)
    of_task = runs.filter(system_task=OuterRef("pk"))
    if gone is not None:
        of_task = of_task.exclude(Exists(gone.order_by().filter(pk=OuterRef("pk"))))
    unused = tasks.exclude(pk__in=_kept_uuids(kept)).filter(~Exists(of_task))
    ended = runs.exclude(state__in=kept_states()).filter(counted(folded))
    if left_alone:
        ended = ended.exclude(left_alone)
    # By the hour, as in the index, and then exactly.
    hour = hour_of("expires")
    ended = ended.filter(LessThanOrEqual(hour, Now()), expires__lte=Now())
    return ended.order_by(hour, "expires"), unused.filter(expires__lte=Now()).order_by("expires")


def _keep(tasks: "QuerySet[SystemTask]") -> None:
    """Clear the expiry of tasks that would expire soon.

    Another process, which may not know that they are kept, could delete them at its next search.
    """
    with transaction.atomic(using=tasks.db):
        soon = tasks.filter(expires__lte=Now() + timedelta(seconds=2 * INTERVAL))
        tasks.filter(pk__in=_locked(soon)).update(expires=None)


def _delete(rows: "QuerySet[Any, Any]", protected: set[Any]) -> int:
    with transaction.atomic(using=rows.db):
        if not has_turn("systemtasks.retention"):
            return 0
        keys = _locked(rows.exclude(pk__in=protected))
        return _delete_or_split(rows, keys, protected) if keys else 0


def _locked(rows: "QuerySet[Any, Any]") -> list[Any]:
    """Lock the first rows, and return their keys. Skip rows that others have locked."""
    free = rows.select_for_update(skip_locked=True)
    return [*free.values_list("pk", flat=True)[:BATCH_LIMIT]]


def _delete_or_split(rows: "QuerySet[Any, Any]", keys: Sequence[Any], protected: set[Any]) -> int:
    """Delete the rows. Halve a batch that fails, until the protected row is alone."""
    try:
        with transaction.atomic(using=rows.db), connections[rows.db].cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            # Filtered again: a run may have been added to a task before the lock, but not since.
            deleted, by_model = rows.filter(pk__in=keys).only("pk").delete()
            if by_model.get(TaskRun._meta.label):
                gone = [*keys]
                kept = TaskRun.objects.using(rows.db).filter(pk__in=keys).values_list("pk")
                for model in ROWS_OF_RUNS:
                    of_runs = model.objects.using(rows.db).filter(run__in=gone)
                    of_runs.exclude(run__in=kept).delete()
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
