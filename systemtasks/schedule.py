"""The tasks that are known before any of them has run."""

from collections.abc import Iterable, Mapping
from typing import Any

from celery import Celery

from systemtasks.arguments import uid_of
from systemtasks.conf import conf
from systemtasks.options import info_of
from systemtasks.records import KnownTask

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
