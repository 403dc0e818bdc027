"""Record with a query at the end of each task, in the task's own thread: the simplest way."""

from datetime import UTC, datetime
from typing import Any

from celery import signals

from systemtasks.capture.celery.options import AnyTask
from systemtasks.ids import system_task_uuid
from systemtasks.models import SystemTask
from systemtasks.states import Status

_starts: dict[str, datetime] = {}


@signals.task_prerun.connect
def note_start(task_id: str, **_: Any) -> None:  # noqa: ANN401 - a signal's own arguments
    _starts[task_id] = datetime.now(UTC)


@signals.task_postrun.connect
def record(task_id: str, task: AnyTask, **_: Any) -> None:  # noqa: ANN401
    start, finish = _starts.pop(task_id), datetime.now(UTC)
    SystemTask.objects.update_or_create(
        uuid=system_task_uuid(task.name),
        defaults={
            "name": task.name,
            "start_timestamp": start,
            "finish_timestamp": finish,
            "duration": (finish - start).total_seconds(),
            "status": Status.SUCCESSFUL,
        },
    )
