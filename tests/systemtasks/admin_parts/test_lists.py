"""The lists: what narrows them is shown, and what cannot narrow them shows nothing."""

import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from systemtasks.admin_parts import counting
from systemtasks.models import ScheduleEntry
from systemtasks.states import State, Status
from tests import factories
from tests.systemtasks.test_admin import RUNS, TASKS, body, listed, page_of, run_at

pytestmark = pytest.mark.django_db

SCHEDULE = "/admin/systemtasks/scheduleentry/"


def chips(page: str) -> dict[str, str]:
    """Return the filters in force in a page: the text of each, and the address without it."""
    lists = re.findall(r'<ul class="st-chips".*?</ul>', page, flags=re.S)
    found = re.findall(r'<span>(.*?)</span><a href="([^"]*)"', "".join(lists))
    return {re.sub("<[^>]*>", "", text): unescape(url) for text, url in found}


@pytest.mark.parametrize("url", [TASKS, RUNS])
@pytest.mark.parametrize(
    "query",
    [
        {"status": "failed"},
        {"started": "bad"},
        {"from": "bad"},
        {"until": "9999-99-99"},
        {"q": "\0"},
        {"name": "x"},
        {"messages__0__event__icontains": "x"},
        {"expires__gt": "2024-01-01"},
        {"nonsense": "1"},
    ],
)
def test_list_that_cannot_be_narrowed_so_is_empty_and_says_why(
    staff: Client, url: str, query: dict[str, str]
) -> None:
    factories.task_run(factories.system_task())
    with CaptureQueriesContext(connection) as captured:
        page = body(staff, url, **query)
    assert listed(staff, url, **query) == []
    (name, value), *_ = query.items()
    assert 'role="alert"' in page
    if name != "q":
        (text,) = (text for text in chips(page) if text.endswith(f": {value}"))
        assert listed(staff, f"{url}{chips(page)[text]}") != []
    assert not [query for query in captured.captured_queries if "messages" in query["sql"]]


@pytest.mark.parametrize("query", [{"state": "bad"}, {"system_task": "bad"}, {"queue": "\0"}])
def test_list_of_runs_that_cannot_be_narrowed_so_is_empty(
    staff: Client, query: dict[str, str]
) -> None:
    factories.task_run(factories.system_task())
    assert listed(staff, RUNS, **query) == []
    assert 'role="alert"' in body(staff, RUNS, **query)


def test_each_filter_in_force_has_a_chip_that_removes_it(staff: Client) -> None:
    task = factories.system_task("demo.sync")
    now = timezone.now()
    run_at(task, now, status=Status.ERROR, state=State.FAILURE, queue="mail", worker="w@1")
    query = {
        "q": "demo", "status": "error", "state": "failure", "queue": "mail", "worker": "w@1",
        "system_task": str(task.pk), "started": "hour", "from": "2024-01-01T00:00",
        "until": "2100-01-01T00:00",
    }  # fmt: skip
    page = body(staff, RUNS, **query)
    found = chips(page)
    assert set(found) == {
        "Search: demo", "Status: Error", "State: Failure", "Queue: mail", "Worker: w@1",
        "Task: demo.sync", "Started: Past hour", "Started from: 2024-01-01 00:00:00 UTC",
        "Started until: 2100-01-01 00:00:00 UTC",
    }  # fmt: skip
    for url in found.values():
        left = chips(body(staff, f"{RUNS}{url}"))
        assert len(left) == len(query) - 1
        assert left.keys() < found.keys()
    assert chips(body(staff, RUNS)) == {}


def test_pills_of_runs_are_what_is_asked_first(staff: Client) -> None:
    task = factories.system_task()
    kinds = {
        "Running": run_at(task, factories.START, state=State.RUNNING, status=Status.UNKNOWN),
        "Queued": run_at(task, None, state=State.QUEUED, status=Status.UNKNOWN),
        "Failed": run_at(task, factories.START, state=State.FAILURE, status=Status.ERROR),
    }
    page = body(staff, f"{RUNS}?state=running&q=clean")
    for text, run in kinds.items():
        (url,) = re.findall(rf'class="st-pill[^"]*" href="([^"]*)"[^>]*>{text}<', page)
        assert "q=clean" in url
        assert listed(staff, RUNS + unescape(url)) == [run]
    assert len(re.findall(r'class="st-pill[^>]*aria-current="true">', page)) == 1


@pytest.mark.parametrize("url", [TASKS, RUNS])
def test_whole_row_is_one_link(staff: Client, url: str) -> None:
    task = factories.system_task()
    run = factories.task_run(task)
    page = body(staff, url)
    row = page[page.index('id="st-rows"') :].partition("</tbody>")[0]
    assert re.findall(r'href="([^"]*)"', row) == [page_of(task if url == TASKS else run)]
    assert row.count('<th scope="row"') == 1


def test_column_says_how_it_is_sorted_and_only_quick_ones_can_be(staff: Client) -> None:
    factories.task_run(factories.system_task())
    page = body(staff, RUNS)
    assert re.findall(r'class="column-(\w+)" aria-sort="(\w+)"', page) == [
        ("started", "descending")
    ]
    (url,) = re.findall(r'href="([^"]*)">Started</a>', page)
    assert 'aria-sort="ascending"' in body(staff, RUNS + unescape(url))
    sorts = dict(re.findall(r'class="column-(\w+)" aria-sort="(\w+)"', body(staff, TASKS)))
    assert sorts == {
        "badge": "none", "task": "none", "failures": "none", "started": "descending",
        "took": "none",
    }  # fmt: skip


@pytest.mark.parametrize("order", ["0", "4", "5", "6", "-4", "99", "x"])
def test_runs_are_not_sorted_by_a_column_without_an_index(staff: Client, order: str) -> None:
    task = factories.system_task()
    old = run_at(task, factories.START, duration=1, wait=1, queue="a")
    new = run_at(task, factories.START + timedelta(hours=1), duration=2, wait=2, queue="b")
    assert listed(staff, RUNS, o=order) == [new, old]


def test_task_that_never_ran_did_not_start_and_took_no_time(staff: Client) -> None:
    now = timezone.now()
    factories.system_task(
        "tests.known", start_timestamp=now, finish_timestamp=now, duration=0, messages=[],
        status=Status.UNKNOWN, sort_timestamp=None,
    )  # fmt: skip
    ran = factories.system_task("tests.ran")
    page = body(staff, TASKS)
    assert re.search(r'class="field-started">never</td><td[^>]*class="field-took">–</td>', page)  # noqa: RUF001
    assert "0 ms" not in page
    assert listed(staff, TASKS)[0] == ran
    assert listed(staff, TASKS, o="5")[1] == ran
    assert listed(staff, TASKS, started="hour") == []


def test_number_of_rows_is_the_same_in_every_place(
    staff: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "COUNT_LIMIT", 2)
    for number in range(4):
        factories.task_run(factories.system_task(f"tests.{number}"))
    tasks, runs = body(staff, TASKS), body(staff, RUNS)
    assert '<small data-live="count">4</small>' in tasks
    assert ">All <small>4</small>" in tasks
    assert '<small data-live="count">more than 2</small>' in runs
    assert '<small data-live="count">0</small>' in body(staff, TASKS, status="error")


@pytest.mark.parametrize("number", ["0", "-1", "x", "999"])
def test_page_that_is_not_there_is_another_one(staff: Client, number: str) -> None:
    factories.task_run(factories.system_task())
    assert len(listed(staff, RUNS, p=number)) == 1


@pytest.mark.parametrize("url", [TASKS, RUNS, SCHEDULE])
def test_empty_list_offers_nothing_to_create_or_to_select(staff: Client, url: str) -> None:
    page = body(staff, url)
    assert "Nothing is recorded yet." in page
    assert not re.search(r"Create|Select |to view", page)


def test_schedule_has_the_look_of_the_other_lists(staff: Client) -> None:
    ScheduleEntry.objects.create(app="a", entry="nightly", task="demo.sync", words="every day")
    ScheduleEntry.objects.create(app="a", entry="off", task="demo.off", enabled=False)
    page = body(staff, SCHEDULE)
    assert '<table class="st-table st-table-scheduleentry"' in page
    assert '<span class="st-badge st-is-unknown">not enabled</span>' in page
    assert [row.entry for row in listed(staff, SCHEDULE, enabled="no")] == ["off"]
    assert [row.entry for row in listed(staff, SCHEDULE, q="nightly")] == ["nightly"]
    assert "Enabled: no" in chips(body(staff, SCHEDULE, enabled="no"))


def test_script_gets_what_changes_by_itself_and_reads_no_values_of_filters(
    staff: Client,
) -> None:
    factories.task_run(factories.system_task(), queue="mail", worker="w@here")

    def read(**headers: Any) -> tuple[str, int]:
        with CaptureQueriesContext(connection) as captured:
            answer = staff.get(RUNS, headers=headers)
        assert answer.headers["vary"].count("X-Systemtasks-Live") == 1
        return answer.content.decode(), len(captured)

    whole, of_page = read()
    part, of_part = read(**{"X-Systemtasks-Live": "1"})
    assert "<html" not in part
    assert "<form" not in part
    for name in ("count", "pills", "rows", "pages"):
        assert f'data-live="{name}"' in part
        assert f'data-live="{name}"' in whole
    assert (of_page, of_part) == (9, 5)
