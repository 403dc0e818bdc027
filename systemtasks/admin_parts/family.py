"""The runs from which a run descends, and those that it has sent."""

from dataclasses import dataclass

from django.db.models import Q

from systemtasks.models import TaskRun

CHILDREN = 20
"""The children that a page shows at most."""
ANCESTORS = 10
"""The runs that are read under the Celery ids of root and parent, which may be used again."""
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

    def __bool__(self) -> bool:
        return bool(self.root or self.parent or self.children)


def family_of(run: TaskRun) -> Family:
    """Return the family of a run, by two queries at most."""
    # Without an order, which no index has beside these conditions, a query ends after its limit.
    runs = TaskRun.objects.order_by().select_related("system_task")
    runs = runs.only(*COLUMNS, "system_task__name", "system_task__uid")
    ids = {run.parent_id, run.root_id} - {"", run.celery_id}
    ancestors: list[TaskRun] = []
    if ids or run.parent_run:
        condition = Q(pk=run.parent_run) if run.parent_run else Q()
        if ids:
            condition |= Q(celery_id__in=ids)
        ancestors = [*runs.filter(condition)[:ANCESTORS]]
    ancestors.sort(key=lambda one: (one.attempt, one.number), reverse=True)
    parent = next((one for one in ancestors if one.pk == run.parent_run), None) or next(
        (one for one in ancestors if one.celery_id == run.parent_id), None
    )
    root = next((one for one in ancestors if one.celery_id == run.root_id), None)
    if root is not None and parent is not None and root.celery_id == parent.celery_id:
        root = None
    found = [*runs.filter(parent_id=run.celery_id).exclude(pk=run.pk)[: CHILDREN + 1]]
    children = sorted(found[:CHILDREN], key=lambda one: one.pk)
    return Family(root, parent, children, len(found) > CHILDREN, root is not None)
