"""A real beat writes its schedule, also with django-celery-beat's scheduler."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from systemtasks.models import ScheduleEntry
from tests import processes
from tests.projects import Project, broker, database, query
from tests.waiting import eventually
from tests.workers import environment

pytestmark = pytest.mark.slow
ENTRIES = "SELECT entry, task, words, enabled, last_sent FROM systemtasks_scheduleentry"
CREATE = """
from django_celery_beat.models import IntervalSchedule, PeriodicTask
second, _ = IntervalSchedule.objects.get_or_create(every=1, period="seconds")
PeriodicTask.objects.create(name="on", task="project.greet", interval=second, args='["World"]')
PeriodicTask.objects.create(name="off", task="project.greet", interval=second, enabled=False)
"""
SWITCH_OFF = """
from django_celery_beat.models import PeriodicTask
PeriodicTask.objects.get(name="on").delete()
PeriodicTask.objects.get(name="off").delete()
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    pytest.importorskip(
        "django_celery_beat", reason="it refuses Django 6.1, so it is no requirement"
    )
    with database() as url:
        made = Project(tmp_path, url, broker())
        made.environment["BEAT_IN_DATABASE"] = "yes"
        made.run("migrate")
        yield made


def test_entries_of_django_celery_beat_are_written_and_kept_current(project: Project) -> None:
    url = project.environment["DATABASE_URL"]

    def entries() -> dict[str, Any]:
        return {name: row for name, *row in query(url, ENTRIES) if name != "celery.backend_cleanup"}

    project.run("shell", "--no-imports", "-c", CREATE)
    command = ["celery", "--app", "tests.project", "beat", "--loglevel", "INFO"]
    command += ["--scheduler", "django_celery_beat.schedulers:DatabaseScheduler"]
    with project.started(*command, until="beat: Starting") as beat:
        assert eventually(lambda: entries().get("on", [None])[-1] is not None), (
            entries(),
            beat.log.read_text(),
        )
        *on, last_sent = entries()["on"]
        assert on == ["project.greet", "every second", True]
        assert isinstance(last_sent, datetime)
        assert datetime.now(UTC) - last_sent < timedelta(seconds=30)
        assert entries()["off"] == ["project.greet", "every second", False, None]
        known = query(url, "SELECT name FROM systemtasks_systemtask")
        assert ("project.greet",) in known
        project.run("shell", "--no-imports", "-c", SWITCH_OFF)
        assert eventually(lambda: not entries()), beat.log.read_text()
    assert "Traceback" not in beat.log.read_text()


@pytest.mark.django_db(transaction=True)
def test_entries_of_the_settings_are_written(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-m", "celery", "--app", "config", "beat", "--loglevel", "INFO"]
    command += ["--schedule", str(tmp_path / "schedule"), "--pidfile", ""]
    process = processes.start(command, log, {**environment(), "DEMO_TASKS": "true"})
    try:
        entries = ScheduleEntry.objects.filter(app="config", last_sent__isnull=False)
        assert eventually(entries.exists), (list(ScheduleEntry.objects.values()), log.read_text())
    finally:
        processes.stop(process)
    sent = entries.earliest("next_due")
    assert sent.words
    assert sent.next_due > sent.last_sent
