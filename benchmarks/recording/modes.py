"""Define the ways to record that are compared. Their workers must not differ in anything else."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

VARIABLE = "BENCHMARK_MODE"
"""The environment variable with the name of the process's mode."""

MODULES = "benchmarks.recording"


@dataclass(frozen=True)
class Mode:
    """One way to record what a worker does."""

    name: str
    recording: bool = False
    """True if this project records."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Django settings that replace those of the service."""
    apps: tuple[str, ...] = ()
    """Django apps in addition to those of the service."""
    options: tuple[str, ...] = ()
    """Further options of `celery worker`."""
    modules: tuple[str, ...] = ()
    """Further modules that the worker imports."""
    count: str = ""
    """The SQL that counts the recorded tasks, if there is one row for each."""
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
# By default, Celery closes the database connections before and after each task. With this setting
# it keeps them for so many tasks.
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
