"""Read a schedule for the tasks that are known before they run."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from celery import Celery

from systemtasks.capture.celery.options import info_of, task_info
from systemtasks.conf import conf
from systemtasks.runs.arguments import clean_arguments
from systemtasks.runs.records import KnownTask

FIELDS = ("task", "args", "kwargs")


def known_tasks(app: Celery, schedule: Mapping[str, Any] | None = None) -> list[KnownTask]:
    """Return the tasks that KNOWN_FROM_START selects: none, the scheduled or all registered ones.

    `schedule` is the one that beat runs. The default is the one in the app's settings: a worker
    knows no other.
    """
    which = conf().KNOWN_FROM_START
    if which == "none":
        return []
    entries = schedule if schedule is not None else app.conf.beat_schedule
    known = {*_scheduled(app, entries.values())}
    if which == "registered":
        # A scheduled task is already known, perhaps with a uid computed from its arguments.
        others = app.tasks.keys() - {task.name for task in known}
        names = (name for name in others if not name.startswith("celery."))
        known |= {*_recorded(app, ((name, None, None) for name in names))}
    return sorted(known)


def unrecorded_tasks(app: Celery) -> list[str]:
    """Return the names of the tasks that this process knows and that are not recorded."""
    return sorted(info.name for info in map(task_info, app.tasks.values()) if not info.recorded)


def _scheduled(app: Celery, entries: Iterable[Any]) -> Iterable[KnownTask]:
    for entry in entries:
        name, args, kwargs = (_field(entry, field) for field in FIELDS)
        if name:  # beat itself reports an entry without a task
            yield from _recorded(app, [(name, args or (), kwargs or {})])


def _field(entry: Any, name: str) -> Any:  # noqa: ANN401
    # An entry is a dictionary in the settings, and an object in beat.
    return entry.get(name) if isinstance(entry, Mapping) else getattr(entry, name, None)


def _recorded(app: Celery, tasks: Iterable[tuple[Any, ...]]) -> Iterable[KnownTask]:
    """Yield the tasks that are recorded. The tasks are given by name and arguments."""
    for name, args, kwargs in tasks:
        info = info_of(app, name)
        if info.recorded:
            uid = clean_arguments(info, args, kwargs, partial(info_of, app)).uid if info.uid else ""
            yield KnownTask(info.name, uid, info.description)
