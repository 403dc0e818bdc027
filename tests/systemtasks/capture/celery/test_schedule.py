"""Which tasks are known before any of them has run."""

from typing import Any

import pytest
from celery import Celery
from celery.beat import ScheduleEntry
from celery.schedules import schedule
from pytest_django import Settings

from systemtasks.capture.celery.schedule import known_tasks
from systemtasks.runs.records import KnownTask

EVERY_MINUTE = 60.0


@pytest.fixture
def app() -> Celery:
    made = Celery("shop", set_as_current=False)

    @made.task(shared=False, name="shop.sync", systemtasks_uid=lambda source: source)
    def sync(source: str) -> None:
        """Sync a source."""

    @made.task(shared=False, name="shop.secretive", systemtasks_record=False)
    def secretive() -> None: ...

    @made.task(shared=False, name="shop.on_demand")
    def on_demand() -> None: ...

    made.conf.beat_schedule = {
        "one": {"task": "shop.sync", "schedule": EVERY_MINUTE, "args": ["ldap"]},
        "two": {"task": "shop.sync", "schedule": EVERY_MINUTE, "kwargs": {"source": "saml"}},
        "again": {"task": "shop.sync", "schedule": EVERY_MINUTE, "args": ("ldap",)},
        "none": {"task": "shop.secretive", "schedule": EVERY_MINUTE},
        "elsewhere": {"task": "shop.elsewhere", "schedule": EVERY_MINUTE, "args": None},
    }
    return made


SCHEDULED = [
    KnownTask("shop.elsewhere"),
    KnownTask("shop.sync", "ldap", "Sync a source."),
    KnownTask("shop.sync", "saml", "Sync a source."),
]


def of_the_shop(known: list[KnownTask]) -> list[KnownTask]:
    """Return the tasks without those that other modules share with all apps."""
    assert not any(task.name.startswith("celery.") for task in known)
    return [task for task in known if task.name.startswith("shop.")]


def test_scheduled_tasks_are_known_once_by_the_uids_of_their_arguments(app: Celery) -> None:
    assert known_tasks(app) == SCHEDULED


def test_beat_knows_its_own_entries_alone(app: Celery) -> None:
    def entry(task: str, **options: Any) -> ScheduleEntry:
        return ScheduleEntry(name=task, task=task, schedule=schedule(60), app=app, **options)

    entries = {
        "one": entry("shop.sync", args=("scim",)),
        "two": entry("shop.sync", kwargs={"source": "oauth"}),
        "three": entry("shop.on_demand"),
    }

    assert [(task.name, task.uid) for task in known_tasks(app, entries)] == [
        ("shop.on_demand", ""),
        ("shop.sync", "oauth"),
        ("shop.sync", "scim"),
    ]
    assert known_tasks(app, {}) == []


def test_registered_tasks_are_known_too_where_that_is_wanted(
    app: Celery, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.SYSTEMTASKS = {"KNOWN_FROM_START": "registered"}
    app.conf.beat_schedule.pop("elsewhere")

    assert of_the_shop(known_tasks(app)) == [KnownTask("shop.on_demand"), *SCHEDULED[1:]]
    assert of_the_shop(known_tasks(app, {})) == [
        KnownTask("shop.on_demand"),
        KnownTask("shop.sync", "", "Sync a source."),
    ]
    assert caplog.text == ""


def test_no_task_is_known_where_that_is_wanted(app: Celery, settings: Settings) -> None:
    settings.SYSTEMTASKS = {"KNOWN_FROM_START": "none"}

    assert known_tasks(app) == []


def test_entry_that_makes_no_sense_hides_no_other(app: Celery) -> None:
    app.conf.beat_schedule["nameless"] = {"schedule": EVERY_MINUTE}
    app.conf.beat_schedule["odd"] = {"task": "shop.on_demand", "args": 7, "kwargs": "none"}

    assert known_tasks(app) == sorted([*SCHEDULED, KnownTask("shop.on_demand")])
