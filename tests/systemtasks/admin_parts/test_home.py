"""The home page: each number, the list behind it, and how many queries it takes."""

import re
from datetime import UTC, datetime
from html import unescape
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from systemtasks.admin_parts.cells import breakable
from systemtasks.admin_parts.home import Home
from systemtasks.models import SystemTask, TaskRun
from systemtasks.states import Status
from tests import factories
from tests.systemtasks.admin_parts import history
from tests.systemtasks.test_admin import RUNS, TASKS, body, listed, viewer

pytestmark = pytest.mark.django_db

HOME = f"{TASKS}home/"


def home(now: datetime) -> Home:
    return Home("admin", may_view_runs=True, now=now)


def behind(client: Client, url: str) -> list[Any]:
    """Return the rows of the list at an address of the page."""
    return listed(client, unescape(url))


def test_failing_tasks_with_how_many_since_when_and_their_lists(staff: Client) -> None:
    now = history.make()
    charge = SystemTask.objects.get(name="shop.charge")
    (one,) = (row for row in home(now).failing if row["key"] == charge.pk)
    assert (one["name"], one["failures"], one["runs"]) == ("shop.charge", 3, 4)
    assert re.sub("<[^>]*>", "", one["how_many"]) == "3 of 4"
    assert one["since"] == now - 30 * history.MINUTE
    assert one["last_success"] == now - 40 * history.MINUTE + history.MINUTE / 60
    assert {run.status for run in behind(staff, one["failures_url"])} == {Status.ERROR}
    assert len(behind(staff, one["failures_url"])) == 3
    assert len(behind(staff, one["runs_url"])) == 4
    assert len(behind(staff, one["success_url"])) == 1


def test_task_that_failed_two_hours_ago_is_not_failing() -> None:
    now = datetime.now(UTC)
    history.ended(factories.system_task(), now - 2 * history.HOUR, **history.FAILED)
    assert home(now).failing == []


def test_runs_in_progress_are_listed_longest_first_and_silent_ones_say_so(staff: Client) -> None:
    shown = home(history.make()).running
    assert [row["worker"] for row in shown] == ["celery@dead", "celery@a"]
    assert [row["is_silent"] for row in shown] == [True, False]
    assert shown[0]["elapsed"] == "2 h 00 min"
    assert [run.pk for run in behind(staff, shown[0]["worker_url"])] == [shown[0]["key"]]


def test_queues_with_what_waits_since_when_and_their_rate(staff: Client) -> None:
    now = history.make()
    queues = {row["name"]: row for row in home(now).queues}
    assert {name: row["waiting"] for name, row in queues.items()} == {"celery": "1", "stuck": "1"}
    assert queues["stuck"]["oldest"] == now - 3 * history.HOUR
    assert (queues["stuck"]["is_late"], queues["celery"]["is_late"]) == (True, False)
    assert (queues["stuck"]["rate"], queues["celery"]["rate"]) == ("0", "6")
    assert len(behind(staff, queues["stuck"]["waiting_url"])) == 1
    assert len(behind(staff, queues["celery"]["rate_url"])) == 6


def test_run_that_is_due_later_does_not_wait_late() -> None:
    now = datetime.now(UTC)
    task, sent = factories.system_task(), now - 5 * history.HOUR
    history.queued(task, sent, eta_timestamp=now + history.HOUR)
    assert not home(now).queues[0]["is_late"]
    assert home(now).late == ""
    history.queued(task, sent)
    assert home(now).late == "1"


def test_workers_are_silent_busy_or_idle(staff: Client) -> None:
    now = history.make()
    task = factories.system_task("shop.other")
    history.ended(task, now - 3 * history.HOUR, worker="celery@b")
    history.ended(task, now - 30 * history.HOUR, worker="celery@gone")
    workers = home(now).workers
    assert [(row["name"], row["kind"], row["busy"]) for row in workers] == [
        ("celery@dead", "silent", "1"),
        ("celery@a", "busy", "1"),
        ("celery@b", "idle", "0"),
    ]
    assert workers[0]["seen"] == now - 20 * history.MINUTE
    assert len(behind(staff, workers[0]["busy_url"])) == 1


def test_entries_of_the_schedule_that_are_overdue() -> None:
    now = history.make()
    assert [row["name"] for row in home(now).overdue] == ["shop.nightly"]


def test_lost_runs_of_the_day(staff: Client) -> None:
    shown = home(history.make())
    assert shown.lost_text == "1"
    assert len(behind(staff, shown.lost_url)) == 1


def test_bars_of_24_hours_have_the_runs_of_each_hour_by_status(staff: Client) -> None:
    now = history.make()
    shown = home(now)
    assert len(shown.bars) == 24
    ended = TaskRun.objects.finished().filter(sort_timestamp__gte=shown.bars[0].start)
    assert sum(bar.runs for bar in shown.bars) == ended.count()
    for bar in shown.bars:
        for status, number, url in bar.counts:
            if status != Status.UNKNOWN:  # which is the status of what is running, too
                assert len(behind(staff, url)) == number
        assert bool(bar.pieces) == bool(bar.runs)
        assert all(piece.y >= 0 and piece.y + piece.height <= 100 for piece in bar.pieces)


def test_one_failure_among_thousands_is_visible_in_its_bar() -> None:
    now = datetime.now(UTC)
    task = factories.system_task()
    history.ended(task, now, **history.FAILED)
    shown = home(now + history.MINUTE)
    (total,) = (total for total in shown._hours.values() if total.runs)
    total.outcomes["success", "successful"] = 9_999
    (bar,) = (bar for bar in shown.bars if bar.runs)
    first = bar.pieces[0]
    assert (first.status, first.height) == ("error", 2.0)


def test_slower_tasks_with_both_medians() -> None:
    (one,) = home(history.make()).slower
    assert one["name"] == "shop.report"
    assert float(one["ratio"].split()[0]) == pytest.approx(4.5, rel=0.1)


def test_recorder_says_what_it_dropped_and_when_it_wrote(staff: Client) -> None:
    now = history.make()
    recorder = home(now).recorder
    assert recorder["dropped"] == "17"
    assert recorder["is_dropping"]
    assert len(behind(staff, recorder["dropped_url"])) == 1
    assert recorder["last_write"] == now - history.MINUTE


def test_page_shows_it_all_and_its_script_gets_the_parts_alone(staff: Client) -> None:
    history.make()
    page = body(staff, HOME).replace("<wbr>", "")
    for text in ("shop.charge", "celery@dead", "stuck", "shop.nightly", "shop.report", "17"):
        assert text in page
    assert "<html" in page
    part = staff.get(HOME, headers={"X-Systemtasks-Live": "1"}).content.decode()
    assert "shop.<wbr>charge" in part
    assert "<html" not in part
    assert set(re.findall(r'data-live="(\w+)"', part)) == set(
        re.findall(r'data-live="(\w+)"', page)
    )


def test_every_link_of_the_page_leads_to_a_page(staff: Client) -> None:
    history.make()
    links = set(re.findall(r'href="(/admin/systemtasks/[^"#]+)"', body(staff, HOME)))
    assert len(links) > 40
    for link in links:
        answer = staff.get(unescape(link))
        assert answer.status_code == 200, link
        assert 'role="alert"' not in answer.content.decode(), link


def test_empty_database_has_a_home_page(staff: Client) -> None:
    page = body(staff, HOME)
    assert "No task has failed in the past hour." in page
    assert "Nothing is running." in page


def test_number_of_queries_does_not_depend_on_the_number_of_rows(staff: Client) -> None:
    history.make()
    with CaptureQueriesContext(connection) as few:
        body(staff, HOME)
    TaskRun.objects.all().delete()
    SystemTask.objects.all().delete()
    connection.cursor().execute("DELETE FROM systemtasks_scheduleentry")
    history.make(more=5)
    with CaptureQueriesContext(connection) as many:
        body(staff, HOME)
    assert len(many) == len(few) <= 30


def test_who_may_not_view_runs_sees_no_runs_and_no_link_to_them() -> None:
    history.make()
    page = body(viewer("systemtask"), HOME)
    assert "shop.<wbr>charge" in page
    assert "celery@dead" not in page
    assert RUNS not in page


def test_who_may_not_view_tasks_is_refused() -> None:
    answer = viewer("taskrun").get(HOME)
    assert answer.status_code == 403
    assert "You may not see this page" in answer.content.decode()


def test_name_of_a_task_breaks_after_its_punctuation_and_is_escaped() -> None:
    assert breakable("a.<b>_c:d") == "a.<wbr>&lt;b&gt;_<wbr>c:<wbr>d"
    assert breakable("") == ""
