"""What beat's schedule says of a task."""

from datetime import datetime, timedelta
from functools import cache
from typing import Any

from celery import current_app
from celery.schedules import maybe_schedule
from django.utils import timezone


@cache
def _load() -> None:
    # A schedule may be in a module of tasks, which beat imports and a web process need not.
    current_app.loader.import_default_modules()


def next_run(name: str, last: datetime | None) -> datetime | None:
    """When beat will send this task next, if it last did at `last`; None where it never will.

    It knows the app's `beat_schedule`; of several entries the earliest counts. A time that is
    past, since beat is late or away, is now.
    """
    _load()
    entries: list[dict[str, Any]] = list(current_app.conf.beat_schedule.values())
    schedules = [entry["schedule"] for entry in entries if entry["task"] == name]
    if not schedules:
        return None
    waits: list[timedelta] = [
        maybe_schedule(schedule, app=current_app).remaining_estimate(last or timezone.now())  # type: ignore[union-attr]
        for schedule in schedules
    ]
    # Schedules are to the second, and counted from a moment that has just passed.
    expected = timezone.now() + max(min(waits), timedelta(0)) + timedelta(seconds=0.5)
    return expected.replace(microsecond=0)
