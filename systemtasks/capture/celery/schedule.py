"""Read beat's schedule: the tasks that are known before they run, and when a task is due."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Any

from celery import Celery, current_app
from celery.schedules import maybe_schedule

from systemtasks.capture.celery.options import info_of, task_info
from systemtasks.conf import conf
from systemtasks.runs.arguments import clean_arguments
from systemtasks.runs.records import KnownTask

FIELDS = ("task", "args", "kwargs")


def known_tasks(app: Celery, schedule: Mapping[str, Any] | None = None) -> list[KnownTask]:
    """Return the tasks that KNOWN_FROM_START selects: none, the scheduled or all registered ones.

    `schedule` is the one that beat runs. The default is the one in the app's settings, which is
    all that a worker knows.
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


def scheduled_names() -> set[str]:
    """Return the names of the tasks in `beat_schedule`. Raise what `load_tasks` raises."""
    load_tasks()
    return {_field(entry, "task") for entry in current_app.conf.beat_schedule.values()}


def next_run(name: str, last: datetime) -> datetime | None:
    """Return when beat will send this task next, given when it last did, or None for never.

    Only the app's `beat_schedule` is read, and the earliest of a task's entries counts. If beat is
    late or stopped, the result is the time in the past at which the task was due.
    """
    load_tasks()
    # Schedules are exact to the second. With `last` rounded, too, each call returns the same time.
    last = last.replace(microsecond=0)
    waits: list[timedelta] = [
        maybe_schedule(_field(entry, "schedule"), app=current_app).remaining_estimate(last)  # type: ignore[union-attr]
        for entry in current_app.conf.beat_schedule.values()
        if _field(entry, "task") == name
    ]
    if not waits:
        return None
    # Rounded, because the waits were computed from a slightly earlier moment than this one.
    expected = datetime.now(UTC) + min(waits) + timedelta(seconds=0.5)
    return expected.replace(microsecond=0)


@cache
def load_tasks() -> None:
    """Import the modules of tasks, which may define a schedule and which a web process may lack.

    Raise what one of them raises.
    """
    current_app.loader.import_default_modules()


def _scheduled(app: Celery, entries: Iterable[Any]) -> Iterable[KnownTask]:
    for entry in entries:
        name, args, kwargs = (_field(entry, field) for field in FIELDS)
        if name:  # beat itself reports an entry without a task
            yield from _recorded(app, [(name, args or (), kwargs or {})])


def _field(entry: Any, name: str) -> Any:  # noqa: ANN401
    # An entry is a dictionary in the settings, and an object in beat.
    return entry.get(name) if isinstance(entry, Mapping) else getattr(entry, name, None)


def _recorded(app: Celery, tasks: Iterable[tuple[Any, ...]]) -> Iterable[KnownTask]:
    """Yield those of the tasks, given by name and arguments, that are recorded."""
    for name, args, kwargs in tasks:
        info = info_of(app, name)
        if info.recorded:
            uid = clean_arguments(info, args, kwargs, partial(info_of, app)).uid if info.uid else ""
            yield KnownTask(info.name, uid, info.description)
