"""The runs from which a run descends, those that it has sent, and those of its group or chord."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Q

from systemtasks.ids import first_id
from systemtasks.models import TaskRun

CHILDREN = 20
"""The children that a page shows at most."""
ANCESTORS = 10
"""The runs that are read under the Celery ids of root and parent, which may be used again."""
AT_ONCE = timedelta(seconds=10)
"""The time in which a group is sent: its runs are looked for that long before and after one."""
COLUMNS = ("id", "celery_id", "attempt", "number", "state", "status", "start_timestamp", "duration")


@dataclass(frozen=True, slots=True)
class Family:
    """A run between its ancestors and its children."""

    root: TaskRun | None
    """The run from which it descends, unless that is its parent."""
    parent: TaskRun | None
    children: list[TaskRun]
    has_more_children: bool
    skips: bool
    """True if there may be runs between root and parent."""
    group: list[TaskRun]
    """The runs that were sent with it as a group, itself too; of a callback, those of its chord."""
    has_more_of_group: bool
    callback: TaskRun | None
    """The run that its chord has sent when the whole group had succeeded."""
    callback_id: str
    """The Celery id of that run, or "" if the group is no header of a chord."""
    is_callback: bool
    """True if the run itself is the callback of the chord."""

    def __bool__(self) -> bool:
        return bool(self.root or self.parent or self.children or self.group or self.callback_id)


def family_of(run: TaskRun) -> Family:
    """Return the family of a run, by three queries at most."""
    # Without an order, which no index has beside these conditions, a query ends after its limit.
    runs = TaskRun.objects.order_by().select_related("system_task")
    runs = runs.only(*COLUMNS, "sent_options", "system_task__name", "system_task__uid")
    group, callback_id = _option(run, "group"), _option(run, "chord")
    ids = {run.parent_id, run.root_id, callback_id} - {"", run.celery_id}
    found: list[TaskRun] = []
    if ids or run.parent_run:
        condition = Q(pk=run.parent_run) if run.parent_run else Q()
        if ids:
            condition |= Q(celery_id__in=ids)
        found = [*runs.filter(condition)[:ANCESTORS]]
    found.sort(key=lambda one: (one.attempt, one.number), reverse=True)
    parent = next((one for one in found if one.pk == run.parent_run), None) or next(
        (one for one in found if one.celery_id == run.parent_id), None
    )
    root = next((one for one in found if one.celery_id == run.root_id), None)
    if root is not None and parent is not None and root.celery_id == parent.celery_id:
        root = None
    # Celery sends the callback in the last run of the header, perhaps long after the others.
    around, is_callback = run, False
    if parent is not None and _option(parent, "chord") == run.celery_id:
        group, around, is_callback = _option(parent, "group"), parent, True
    of_chord = run.celery_id if is_callback else callback_id  # it may carry the group's id, too
    of_group: list[TaskRun] = []
    if group:
        first, end = _sent_with(around.pk)
        together = runs.filter(pk__gte=first, pk__lt=end, sent_options__group=group)
        if of_chord:
            together = together.exclude(celery_id=of_chord)
        of_group = sorted(together[: CHILDREN + 1], key=lambda one: one.pk)
    sent = [*runs.filter(parent_id=run.celery_id).exclude(pk=run.pk)[: CHILDREN + 1]]
    children = sorted(sent[:CHILDREN], key=lambda one: one.pk)
    return Family(
        root,
        parent,
        children,
        len(sent) > CHILDREN,
        root is not None,
        of_group[:CHILDREN],
        len(of_group) > CHILDREN,
        next((one for one in found if callback_id and one.celery_id == callback_id), None),
        callback_id,
        is_callback,
    )


def _option(run: TaskRun, name: str) -> str:
    """Return a text that the message of a run carried, or ""."""
    options: Any = run.sent_options
    value = options.get(name) if isinstance(options, dict) else None
    return value if isinstance(value, str) else ""


def _sent_with(pk: UUID) -> tuple[UUID, UUID]:
    """Return the first id, and the end of the ids, of what may have been sent with a run."""
    try:
        sent = datetime.fromtimestamp((pk.int >> 80) / 1000, UTC)
        return first_id(sent - AT_ONCE), first_id(sent + AT_ONCE)
    except (ValueError, OverflowError, OSError):
        return pk, pk
