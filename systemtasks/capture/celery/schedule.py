"""What beat's schedule says: which tasks are known before they have run, and when one is due."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from celery import Celery, current_app
from celery.schedules import maybe_schedule
from django.utils import timezone

from systemtasks.capture.celery.options import info_of
from systemtasks.conf import conf
from systemtasks.runs.arguments import uid_of
from systemtasks.runs.records import KnownTask

FIELDS = ("task", "args", "kwargs")


def known_tasks(app: Celery, schedule: Mapping[str, Any] | None = None) -> list[KnownTask]:
    """What KNOWN_FROM_START names: each scheduled task, or each registered one as well.

    `schedule` is what beat runs by; a worker knows only the one in the app's settings.
    """
    which = conf().KNOWN_FROM_START
    if which == "none":
        return []
    entries = schedule if schedule is not None else app.conf.beat_schedule
    known = {*_scheduled(app, entries.values())}
    if which == "registered":
        # A scheduled task may be known by the uids that its arguments make.
        others = app.tasks.keys() - {task.name for task in known}
        names = (name for name in others if not name.startswith("celery."))
        known |= {*_known(app, ((name, None, None) for name in names))}
    return sorted(known)


def scheduled_names() -> set[str]:
    """The names of the tasks in the app's `beat_schedule`."""
    load_tasks()
    return {_field(entry, "task") for entry in current_app.conf.beat_schedule.values()}


def next_run(name: str, last: datetime) -> datetime | None:
    """When beat will send this task next, if it last did at `last`; None where it never will.

    It knows the app's `beat_schedule`; of several entries the earliest counts. Where beat is late
    or away, it is the moment, now past, when the task was due.
    """
    load_tasks()
    # Schedules are to the second; so is the last time, for the answer to be the same each time.
    last = last.replace(microsecond=0)
    waits: list[timedelta] = [
        maybe_schedule(_field(entry, "schedule"), app=current_app).remaining_estimate(last)  # type: ignore[union-attr]
        for entry in current_app.conf.beat_schedule.values()
        if _field(entry, "task") == name
    ]
    if not waits:
        return None
    # Rounded, since the waits were counted from a moment that has just passed.
    expected = timezone.now() + min(waits) + timedelta(seconds=0.5)
    return expected.replace(microsecond=0)


@cache
def load_tasks() -> None:
    """Import the modules of tasks, which a web process need not have done; a schedule may be there.

    Raises what one of them raises.
    """
    current_app.loader.import_default_modules()


def _scheduled(app: Celery, entries: Iterable[Any]) -> Iterable[KnownTask]:
    for entry in entries:
        name, args, kwargs = (_field(entry, field) for field in FIELDS)
        if name:  # beat itself says what is wrong with an entry
            yield from _known(app, [(name, args or (), kwargs or {})])


def _field(entry: Any, name: str) -> Any:  # noqa: ANN401
    # An entry is a dictionary in the settings, and an object in beat.
    return entry.get(name) if isinstance(entry, Mapping) else getattr(entry, name, None)


def _known(app: Celery, tasks: Iterable[tuple[Any, ...]]) -> Iterable[KnownTask]:
    for name, args, kwargs in tasks:
        info = info_of(app, name)
        if info.recorded:
            yield KnownTask(info.name, uid_of(info, args, kwargs), info.description)
