"""The ways to record that are compared. Nothing else may differ between their workers."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

VARIABLE = "BENCHMARK_MODE"
"""The environment variable by which a process knows its mode, by name."""

MODULES = "benchmarks.recording"


@dataclass(frozen=True)
class Mode:
    """One way to record what a worker does."""

    name: str
    recording: bool = False
    """True if this service's own recording is on."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Django settings that replace this service's own."""
    apps: tuple[str, ...] = ()
    """Django apps beside this service's own."""
    options: tuple[str, ...] = ()
    """Further options of `celery worker`."""
    modules: tuple[str, ...] = ()
    """Further modules that the worker imports."""
    count: str = ""
    """The SQL that counts what it has recorded, if that is one row a task."""
    read_events: bool = False
    """True if a separate process reads the worker's events, as Flower does."""


NOTHING = Mode("nothing")
OURS = Mode(
    "System Tasks",
    recording=True,
    count="SELECT count(*) FROM systemtasks_taskrun WHERE finish_timestamp IS NOT NULL",
)
RESULTS = {
    "CELERY_RESULT_BACKEND": "django-db",
    "CELERY_RESULT_EXTENDED": True,
    "CELERY_TASK_IGNORE_RESULT": False,
}
COUNT_RESULTS = "SELECT count(*) FROM django_celery_results_taskresult"
RESULTS_APP = ("django_celery_results",)
DJANGO_CELERY_RESULTS = Mode(
    "django-celery-results", settings=RESULTS, apps=RESULTS_APP, count=COUNT_RESULTS
)
# Celery closes a task's database connections before and after it, unless told for how many tasks
# they may be kept; this is the best that can be had of it, and not the default.
KEPT_CONNECTIONS = Mode(
    "django-celery-results, connections kept",
    settings={**RESULTS, "CELERY_DB_REUSE_MAX": 1_000_000},
    apps=RESULTS_APP,
    count=COUNT_RESULTS,
)
EVENTS = Mode(
    "events, as Flower needs them",
    settings={"CELERY_TASK_SEND_SENT_EVENT": True},
    options=("--task-events",),
    read_events=True,
)
UPDATE_OR_CREATE = Mode("one update_or_create a task", modules=(f"{MODULES}.update_or_create",))

DATABASE_AWAY = Mode(
    "System Tasks, its database away",
    recording=True,
    settings={
        "DATABASES": {
            "default": {"ENGINE": "django.db.backends.postgresql", "HOST": "/nonexistent"}
        }
    },
)

COMPARED = (NOTHING, OURS, DJANGO_CELERY_RESULTS, KEPT_CONNECTIONS, EVENTS, UPDATE_OR_CREATE)


def of_this_process() -> Mode:
    """Return the mode that the environment names. Without one, nothing is recorded."""
    name = os.environ.get(VARIABLE, NOTHING.name)
    return next(mode for mode in (*COMPARED, DATABASE_AWAY) if mode.name == name)
