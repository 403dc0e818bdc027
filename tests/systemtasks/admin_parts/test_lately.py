"""The list of tasks says how they have been, not how their last run was."""

import re
from datetime import UTC, datetime
from html import unescape
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from systemtasks.admin import FAILURES_COLUMN
from systemtasks.admin_parts.lately import lately
from systemtasks.models import ScheduleEntry, SystemTask
from systemtasks.states import Status
from tests import factories
from tests.systemtasks.admin_parts import history
from tests.systemtasks.admin_parts.history import DAY, FAILED, HOUR, MINUTE
from tests.systemtasks.test_admin import TASKS, body, listed

pytestmark = pytest.mark.django_db


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


def runs(name: str, now: datetime, outcomes: str) -> SystemTask:
    """Return a saved task that has had a run each minute, oldest first: F failed, S did not."""
    task = factories.system_task(name, start_timestamp=now - MINUTE, finish_timestamp=now)
    for index, outcome in enumerate(outcomes):
        start = now - (len(outcomes) - index) * MINUTE
        history.ended(task, start, **(FAILED if outcome == "F" else {}))
    return task


@pytest.mark.parametrize(
    ("outcomes", "text"),
    [
        ("FFFSFFFSFFFS", "failing 9 of 12"),
        ("SSSF", "failing 1 of 4"),
        ("S" * 30 + "F", "failing 1 of 20"),
        ("F" + "S" * 9, None),
        ("F" + "S" * 20, None),
        ("SSSS", None),
    ],
)
def test_task_that_fails_is_not_listed_as_its_last_run_was(
    staff: Client, now: datetime, outcomes: str, text: str | None
) -> None:
    runs("demo.flaky", now, outcomes)
    page = body(staff, TASKS)
    assert bool(re.search(r'st-is-error">failing', page)) == bool(text)
    assert f">{text or 'Successful'}<" in page


def test_failures_of_another_day_do_not_make_a_task_failing(staff: Client, now: datetime) -> None:
    task = factories.system_task("demo.weekly", start_timestamp=now, finish_timestamp=now)
    history.ended(task, now - 2 * DAY, **FAILED)
    assert not re.search(r"failing \d", body(staff, TASKS))


def test_strip_has_the_last_runs_in_order_and_says_them_in_words(
    staff: Client, now: datetime
) -> None:
    runs("demo.flaky", now, "F" * 5 + "S" * 17 + "FFS")
    (strip,) = re.findall(r'<svg class="st-lately".*?</svg>', body(staff, TASKS))
    shown = re.findall(r'<rect class="st-is-(\w+)"', strip)
    assert shown == ["successful"] * 17 + ["error", "error", "successful"]
    assert "2 Error, 18 Successful" in strip


def test_runs_that_have_not_ended_are_not_in_the_strip(now: datetime) -> None:
    task = factories.system_task()
    history.ended(task, now - HOUR)
    history.running(task, now - MINUTE, now)
    history.queued(task, now)
    assert lately([task])[task.pk].statuses == ["successful"]


def test_list_shows_failures_percentile_and_next_run(staff: Client, now: datetime) -> None:
    task = runs("demo.flaky", now, "FFFS")
    history.ended(task, now - 20 * HOUR, 90.0, **FAILED)
    history.ended(task, now - 30 * HOUR, 900.0, **FAILED)
    schedule = scheduled("demo.flaky", now)
    been = lately([task])[task.pk]
    assert (been.failures_of_day, been.p95) == (4, 90.0)
    assert been.next_due == schedule
    page = body(staff, TASKS)
    assert "p95 1 min 30 s" in page
    assert re.search(r'class="field-failures"><a [^>]*>4</a></td>', page)
    assert re.search("next <time[^>]*>.*from now", page)


def scheduled(task: str, now: datetime) -> datetime:
    """Save entries of a task, and return when the first one that is enabled is due."""
    entry = ScheduleEntry.objects.create
    entry(app="a", entry="off", task=task, next_due=now + MINUTE, enabled=False)
    entry(app="a", entry="uid", task=task, uid="eu", next_due=now + MINUTE)
    entry(app="a", entry="late", task=task, next_due=now + 3 * HOUR)
    return entry(app="a", entry="on", task=task, next_due=now + 2 * HOUR).next_due or now


def test_number_of_failures_leads_to_as_many_runs_for_who_may_view_them(
    staff: Client, now: datetime
) -> None:
    runs("demo.flaky", now, "FFS")
    cell = re.search(r'class="field-failures"><a href="([^"]+)">2</a>', body(staff, TASKS))
    assert cell
    assert len(listed(staff, unescape(cell[1]))) == 2
    client = Client()
    client.force_login(factories.user("nina", "view_systemtask", is_staff=True))
    assert re.search(r'class="field-failures">2<', body(client, TASKS))


def test_tasks_are_sorted_by_their_failures(staff: Client, now: datetime) -> None:
    runs("demo.some", now, "FS")
    runs("demo.none", now, "SS")
    runs("demo.most", now, "FFF")

    def order(o: str) -> list[str]:
        return [task.name for task in listed(staff, TASKS, o=o)]

    assert order(f"-{FAILURES_COLUMN}") == ["demo.most", "demo.some", "demo.none"]
    assert order(f"{FAILURES_COLUMN}") == ["demo.none", "demo.some", "demo.most"]


def test_tasks_without_failures_can_be_sorted_by_them(staff: Client, now: datetime) -> None:
    runs("demo.none", now, "S")
    assert [task.name for task in listed(staff, TASKS, o=str(FAILURES_COLUMN))] == ["demo.none"]


@pytest.mark.parametrize("query", [{}, {"o": f"-{FAILURES_COLUMN}"}])
def test_number_of_queries_does_not_grow_with_tasks(
    staff: Client, now: datetime, query: dict[str, Any]
) -> None:
    def count() -> int:
        with CaptureQueriesContext(connection) as captured:
            body(staff, TASKS, **query)
        return len(captured)

    runs("demo.first", now, "FS")
    few = count()
    for number in range(30):
        runs(f"demo.{number}", now, "FFS")
    assert count() == few <= 14


def test_status_in_the_api_stays_that_of_the_last_run(now: datetime) -> None:
    task = runs("demo.flaky", now, "FFFS")
    assert SystemTask.objects.get(pk=task.pk).status == Status.SUCCESSFUL
