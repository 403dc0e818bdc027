"""The page of a task: its days, its percentiles, its errors, and what is running and queued."""

import re
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest
from django.test import Client
from django.utils import timezone

from systemtasks.admin_parts import task_page
from systemtasks.admin_parts.errors import GROUPS
from systemtasks.models import SystemTask, TaskRun
from systemtasks.states import State, Status
from tests import factories
from tests.systemtasks.test_admin import RUNS, body, listed, page_of, viewer

pytestmark = pytest.mark.django_db

FAILED = {"state": State.FAILURE, "status": Status.ERROR}
UNSTARTED = {"start_timestamp": None, "finish_timestamp": None, "status": Status.UNKNOWN}


def run_of(task: SystemTask, days: float, **fields: Any) -> TaskRun:
    start = timezone.now() - timedelta(days=days)
    values: dict[str, Any] = {"start_timestamp": start, "finish_timestamp": start}
    return factories.task_run(task, **{**values, **fields})


def context(client: Client, task: SystemTask) -> Any:
    return client.get(page_of(task)).context


def test_days_have_a_bar_of_their_runs_by_status_and_link_to_them(staff: Client) -> None:
    task = factories.system_task()
    for _ in range(3):
        run_of(task, 5)
    run_of(task, 5, **FAILED)
    run_of(task, 2)
    run_of(task, 40)
    run_of(factories.system_task("another"), 5)
    month = context(staff, task)["month"]
    assert (len(month.days), month.runs, month.failures, month.most) == (30, 5, 1, 4)
    full, less = month.days[-6], month.days[-3]
    assert [(part.status, part.y, part.height) for part in full.parts] == [
        ("error", 45.0, 15.0), ("successful", 0.0, 45.0),
    ]  # fmt: skip
    assert [(part.y, part.height) for part in less.parts] == [(45.0, 15.0)]
    page = body(staff, page_of(task))
    assert "1 failed of 5 runs" in page
    query = {name: values[0] for name, values in parse_qs(full.query).items()}
    assert len(listed(staff, RUNS, **query)) == 4
    assert full.query.replace("&", "&amp;") in page


def test_bars_stay_in_the_drawing_and_a_single_failure_is_seen(staff: Client) -> None:
    task = factories.system_task()
    run_of(task, 1, **FAILED)
    run_of(task, 1, state=State.RETRY, status=Status.WARNING)
    for _ in range(200):
        run_of(task, 1)
    [parts] = [day.parts for day in context(staff, task)["month"].days if day.runs]
    assert [part.status for part in parts] == ["error", "warning", "successful"]
    assert all(part.height >= task_page.LOWEST and part.y >= 0 for part in parts)
    assert sum(part.height for part in parts) <= task_page.HEIGHT


def test_percentiles_are_beside_those_of_the_week_before(staff: Client) -> None:
    task = factories.system_task()
    run_of(task, 10, duration=1.0)
    assert context(staff, task)["percentiles"] == []
    run_of(task, 2, duration=2.0)
    found = context(staff, task)["percentiles"]
    assert [(one.name, one.now, one.before, one.change, one.is_slower) for one in found] == [
        ("p50", "2.00 s", "1.00 s", "+100 %", True),
        ("p95", "2.00 s", "1.00 s", "+100 %", True),
    ]
    assert "1.00 s in the week before" in body(staff, page_of(task))


def test_errors_are_grouped_the_most_frequent_first_with_a_link_to_the_newest(
    staff: Client,
) -> None:
    task = factories.system_task()
    run_of(task, 3, exception="E: card 1 declined", **FAILED)
    newest = run_of(task, 1, exception="E: card 2 declined", **FAILED)
    run_of(task, 2, exception="KeyError: 'name'", **FAILED)
    groups = context(staff, task)["errors"].groups
    assert [(group.text, group.count) for group in groups] == [
        ("E: card … declined", 2), ("KeyError: 'name'", 1),
    ]  # fmt: skip
    assert groups[0].newest == newest.pk
    assert page_of(newest) in body(staff, page_of(task))
    for number in range(GROUPS):
        run_of(task, 1, exception=f"E{'x' * number}: no", **FAILED)
    assert len(context(staff, task)["errors"].shown) == GROUPS


def test_queued_and_running_runs_are_in_a_box_and_leave_the_history_in_sight(
    staff: Client,
) -> None:
    task = factories.system_task()
    finished = run_of(task, 1)
    running = run_of(task, 0.01, state=State.RUNNING, status=Status.UNKNOWN, finish_timestamp=None)
    queued = [
        factories.task_run(task, state=State.QUEUED, **UNSTARTED)
        for _ in range(task_page.WAITING + 7)
    ]
    shown = context(staff, task)
    assert shown["runs"] == [finished]
    first, second = shown["unfinished"]
    assert (first.runs, first.more) == ([running], "")
    assert (second.runs, second.more) == (queued[: task_page.WAITING], "7")
    page = body(staff, page_of(task))
    assert re.search(r"state=queued[^>]*>and 7 more<", page)
    query = {name: values[0] for name, values in parse_qs(second.query).items()}
    assert len(listed(staff, RUNS, **query)) == task_page.WAITING + 7
    assert context(staff, factories.system_task("idle"))["unfinished"] == []


def test_queued_runs_are_counted_up_to_a_limit(
    staff: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_page, "COUNT_LIMIT", 15)
    task = factories.system_task()
    for _ in range(16):
        factories.task_run(task, state=State.QUEUED, **UNSTARTED)
    assert context(staff, task)["unfinished"][0].more == "5+"


def test_who_may_not_view_runs_sees_nothing_of_them() -> None:
    task = factories.system_task()
    run_of(task, 1, exception="E: a secret", **FAILED)
    page = body(viewer("systemtask"), page_of(task))
    assert "a secret" not in page
    assert "The past 30 days" not in page


def test_numbers_of_the_drawing_are_no_words_of_a_language(staff: Client) -> None:
    task = factories.system_task()
    for number in range(7):
        run_of(task, number % 3 + 1)
    answer = staff.get(page_of(task), headers={"accept-language": "de"})
    page = answer.content.decode()
    assert "Die letzten 30 Tage" in page
    found = re.findall(
        r'<rect class="st-part-\w+" x="([^"]*)" y="([^"]*)" width="8" height="([^"]*)"', page
    )
    assert len(found) == 3
    assert all(re.fullmatch(r"\d+(\.\d+)?", value) for values in found for value in values)
