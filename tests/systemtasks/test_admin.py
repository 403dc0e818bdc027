"""The admin, through its own URLs; `test_all_of_this_holds_in_another_look` runs it all again."""

import os
import re
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from django.apps import apps
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.db.models import QuerySet
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from systemtasks.admin_parts import counting
from systemtasks.admin_parts.text import (
    NOTHING,
    duration_text,
    log_lines,
    pretty,
    with_unseen_shown,
    worst_line,
)
from systemtasks.ids import new_uuid
from systemtasks.models import ScheduleEntry, SystemTask, TaskRun
from systemtasks.states import State, Status
from tests import factories

pytestmark = pytest.mark.django_db

TASKS = "/admin/systemtasks/systemtask/"
RUNS = "/admin/systemtasks/taskrun/"
AGES = {"now": 0.1, "this morning": 11, "yesterday": 20, "last year": 9000}  # hours
ATTACK = "<script>alert(1)</script>"


def viewer(*models: str) -> Client:
    """Return a client whose user, a staff member, may only view these models."""
    user = User.objects.create_user("viewer", is_staff=True)
    codenames = [f"view_{model}" for model in models]
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def staff() -> Client:
    return viewer("systemtask", "taskrun")


def page_of(row: SystemTask | TaskRun) -> str:
    return reverse(f"admin:systemtasks_{row._meta.model_name}_change", args=[row.pk])


def body(client: Client, url: str, **query: str) -> str:
    response = client.get(url, query)
    assert response.status_code == 200, response
    return response.content.decode()


def listed(client: Client, url: str, **query: str) -> list[Any]:
    response = client.get(url, query)
    assert response.status_code == 200, response
    return list(response.context["cl"].result_list)


def run_at(task: SystemTask, moment: datetime | None, **fields: Any) -> TaskRun:
    return factories.task_run(task, start_timestamp=moment, finish_timestamp=moment, **fields)


# Permissions: users may view, and nothing else.


def test_a_stranger_is_sent_to_the_login_page(client: Client) -> None:
    for url in (TASKS, RUNS):
        assert client.get(url).headers["location"] == f"/admin/login/?next={url}"


def test_staff_without_the_view_permission_is_refused() -> None:
    client = viewer()
    task = factories.system_task()
    for url in (TASKS, RUNS, page_of(task), page_of(factories.task_run(task))):
        assert client.get(url).status_code == 403


def test_even_a_superuser_can_only_look(admin_client: Client) -> None:
    task = factories.system_task()
    run = factories.task_run(task)
    for row in (task, run):
        assert admin_client.get(page_of(row)).status_code == 200
        assert admin_client.post(page_of(row), {"status": "error"}).status_code == 403
        for action in ("add", "delete"):
            args = [] if action == "add" else [row.pk]
            url = reverse(f"admin:systemtasks_{row._meta.model_name}_{action}", args=args)
            assert admin_client.get(url).status_code == 403
            assert admin_client.post(url, {"post": "yes"}).status_code == 403
            assert url not in body(admin_client, page_of(row))
    task.refresh_from_db()
    assert task.status == Status.SUCCESSFUL
    assert TaskRun.objects.count() == 1


def test_runs_are_shown_on_a_task_only_to_who_may_view_runs() -> None:
    task = factories.system_task()
    run = factories.task_run(task)
    assert page_of(run) not in body(viewer("systemtask"), page_of(task))
    User.objects.get().delete()
    assert page_of(run) in body(viewer("systemtask", "taskrun"), page_of(task))


def test_a_run_links_its_task_only_for_who_may_view_tasks() -> None:
    task = factories.system_task()
    run = factories.task_run(task)
    page = body(viewer("taskrun"), page_of(run))
    assert task.full_name in page
    assert page_of(task) not in page


# A task's values are shown as text.


def attacked() -> tuple[SystemTask, TaskRun]:
    message = factories.log_event(
        ATTACK,
        logger=ATTACK,
        log_level=ATTACK,
        timestamp=ATTACK,
        attributes={
            ATTACK: ATTACK,
            f"long {ATTACK}": f"{ATTACK}\n{ATTACK}",
            "nested": {ATTACK: [ATTACK]},
            "exception": {"type": ATTACK, "message": ATTACK, "traceback": f"{ATTACK}\n"},
        },
    )
    error = factories.log_event(ATTACK, log_level="error")
    task = factories.system_task(
        ATTACK, ATTACK, description=ATTACK, status=Status.ERROR, messages=[message, error]
    )
    run = factories.task_run(
        task,
        celery_id=ATTACK,
        attempt=2,
        queue=ATTACK,
        worker=ATTACK,
        exception=ATTACK,
        args=[ATTACK],
        kwargs={ATTACK: ATTACK},
        messages=[message],
    )
    factories.task_run(task, celery_id=ATTACK, exception=ATTACK)
    return task, run


@pytest.mark.parametrize("which", ["tasks", "runs", "task", "run", "search"])
def test_nothing_that_a_task_says_becomes_html(staff: Client, which: str) -> None:
    task, run = attacked()
    urls = {"tasks": TASKS, "runs": RUNS, "task": page_of(task), "run": page_of(run)}
    query = {"q": ATTACK} if which == "search" else {}
    page = body(staff, urls.get(which, TASKS), **query)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_row_that_does_not_keep_to_the_contract_is_still_shown(staff: Client) -> None:
    odd = [None, "text", {}, {"timestamp": "yesterday", "event": "Still here", "attributes": 3}]
    task = factories.system_task(messages=odd)
    assert "Still here" in body(staff, page_of(task))
    SystemTask.objects.update(messages={"not": "a list"})
    assert "It said nothing." in body(staff, page_of(task))
    assert listed(staff, TASKS) == [task]


# The lists.


@pytest.mark.parametrize("status", Status.values)
def test_the_badge_has_the_colour_of_its_status(staff: Client, status: str) -> None:
    task = factories.system_task(status=status)
    badge = f'<span class="st-badge st-is-{status}">{Status(status).label}</span>'
    assert badge in body(staff, TASKS)
    assert badge in body(staff, page_of(task))


def test_every_colour_is_in_the_stylesheet() -> None:
    path = f"{apps.get_app_config('systemtasks').path}/static/systemtasks/admin.css"
    with open(path) as file:  # noqa: PTH123
        css = file.read()
    for word in (*Status.values, State.QUEUED, State.RUNNING):
        assert re.search(rf"\.st-is-{word}\b[^}}]*--st-ink", css), word


def test_a_run_that_has_not_ended_shows_where_it_stands(staff: Client) -> None:
    run_at(factories.system_task(), None, state=State.QUEUED, status=Status.UNKNOWN)
    assert '<span class="st-badge st-is-queued">Queued</span>' in body(staff, RUNS)


def test_a_run_says_who_sent_it_and_when_its_worker_was_last_seen(staff: Client) -> None:
    run = factories.task_run(
        factories.system_task(),
        sender="gen7@web-1",
        parent_id="the-parent",
        context={"tenant": "<acme>"},
        seen_timestamp=factories.START,
    )
    page = staff.get(reverse("admin:systemtasks_taskrun_change", args=[run.pk])).content.decode()

    for said in ("gen7@web-1", "the-parent", "&lt;acme&gt;", "last sign of life"):
        assert said in page


def test_a_list_shows_name_age_duration_and_last_message(staff: Client) -> None:
    now = timezone.now()
    start = now - timedelta(minutes=3, seconds=5)
    factories.system_task(
        "demo.sync", "staff", start_timestamp=start, finish_timestamp=now, duration=185,
        messages=[factories.log_event("First"), factories.log_event(f"Last\n{'x' * 900}")],
    )  # fmt: skip
    page = body(staff, TASKS)
    assert "demo.sync:staff" in page
    assert (
        f'title="{start.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC">3\N{NO-BREAK SPACE}minutes ago'
        in page
    )
    assert "3 min 05 s" in page
    assert ">Last<" in page
    assert "First" not in page


def test_status_pills_count_the_tasks_that_the_other_filters_leave(staff: Client) -> None:
    factories.system_task("a.one", status=Status.ERROR)
    factories.system_task("a.two", status=Status.ERROR)
    factories.system_task("a.three", status=Status.WARNING)
    factories.system_task("b.one", status=Status.WARNING)
    page = re.sub(r"\s+", " ", body(staff, TASKS, q="a.", status="error"))
    assert re.search(r">All <small>3</small>", page)
    assert re.search(r'aria-current="true">Failed <small>2</small>', page)
    assert re.search(r">Warning <small>1</small>", page)


def test_failures_are_first_after_one_click(staff: Client) -> None:
    for status in (Status.SUCCESSFUL, Status.UNKNOWN, Status.ERROR, Status.WARNING):
        factories.system_task(f"tests.{status}", status=status)
    link = re.search(r'href="\?([^"]*)">Status</a>', body(staff, TASKS))
    assert link
    tasks = listed(staff, f"{TASKS}?{link[1]}")
    assert [task.status for task in tasks] == ["error", "warning", "unknown", "successful"]


def test_tasks_are_filtered_by_status(staff: Client) -> None:
    failed = factories.system_task("failed", status=Status.ERROR)
    factories.system_task("well")
    assert listed(staff, TASKS, status="error") == [failed]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"started": "hour"}, ["now"]),
        ({"started": "today"}, ["now", "this morning"]),
        ({"started": "day"}, ["now", "this morning", "yesterday"]),
        ({"started": "week"}, ["now", "this morning", "yesterday"]),
        ({"from": "2024-06-05T23:00", "until": "2024-06-07T10:30"}, ["this morning", "yesterday"]),
        ({"until": "2024-06-01T00:00"}, ["last year"]),
        ({"until": "", "from": "", "started": "", "status": ""}, AGES),
    ],
)  # fmt: skip
def test_tasks_are_filtered_by_time(
    staff: Client, monkeypatch: pytest.MonkeyPatch, query: dict[str, str], names: Iterable[str]
) -> None:
    now = datetime(2024, 6, 7, 12, tzinfo=UTC)
    monkeypatch.setattr("systemtasks.admin_parts.filters._now", lambda: now)
    for name, age in AGES.items():
        moment = now - timedelta(hours=age)
        factories.system_task(name, start_timestamp=moment, finish_timestamp=moment)
    assert [task.name for task in listed(staff, TASKS, **query)] == list(names)


def test_runs_are_filtered_by_each_of_their_words(staff: Client) -> None:
    one, other = factories.system_task("one"), factories.system_task("other")
    wanted = run_at(
        one, factories.START, status=Status.ERROR, state=State.FAILURE, queue="mail", worker="w@1"
    )
    run_at(other, factories.START, queue="celery", worker="w@2")
    for query in (
        {"status": "error"},
        {"state": "failure"},
        {"queue": "mail"},
        {"worker": "w@1"},
        {"system_task": str(one.pk)},
        {"status": "error", "state": "failure", "queue": "mail", "worker": "w@1"},
    ):
        assert listed(staff, RUNS, **query) == [wanted], query
    assert listed(staff, RUNS, queue="mail", worker="w@2") == []


@pytest.mark.parametrize("state", State.values)
def test_each_state_finds_its_runs(staff: Client, state: str) -> None:
    task = factories.system_task()
    status = Status.SUCCESSFUL if state == State.SUCCESS else Status.WARNING
    run = factories.task_run(task, state=state, status=status)
    assert listed(staff, RUNS, state=state) == [run]


def test_the_task_filter_offers_a_chosen_task_that_is_far_down_the_alphabet(
    staff: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("systemtasks.admin_parts.filters.VALUE_LIMIT", 1)
    factories.system_task("aaa")
    task = factories.system_task("zzz")
    assert f'<option value="{task.pk}" selected>zzz' in body(staff, RUNS, system_task=str(task.pk))
    assert "zzz" not in body(staff, RUNS)


# The searches.


@pytest.mark.parametrize("words", ["PAYROLL", "payr", "Figures", "bank refuses", "refuses bank"])
def test_tasks_are_found_by_name_description_and_message(staff: Client, words: str) -> None:
    message = factories.log_event("The bank refuses order 4711")
    wanted = factories.system_task(
        "demo.payroll", description="Add up the figures.", messages=[message]
    )
    factories.system_task("demo.bank")
    assert listed(staff, TASKS, q=words) == [wanted]


def test_a_percent_sign_is_searched_for_as_it_is(staff: Client) -> None:
    wanted = factories.system_task("full", messages=[factories.log_event("Disk 90% full")])
    factories.system_task("other", messages=[factories.log_event("Disk 901 full")])
    assert listed(staff, TASKS, q="90%") == [wanted]


ID = "9f3ae529-0b1c-4c5e-8d27-6a1f4be0c9d9"


@pytest.mark.parametrize(
    "term", [ID, ID[:4], ID[:8], ID[:9], ID[:12], ID[:-1], "Custom id 7", "payroll", "demo pay"]
)
def test_runs_are_found_by_celery_id_and_by_task(staff: Client, term: str) -> None:
    task = factories.system_task("demo.payroll")
    celery_id = "Custom id 7" if term == "Custom id 7" else ID
    wanted = factories.task_run(task, celery_id=celery_id)
    other = factories.system_task("other")
    for neighbour in ("9f3a", "9f3ad529-0b1c", "9f3af", "9f3ae5290", "9f3b", "9f4", "a"):
        factories.task_run(other, celery_id=neighbour)
    expected = {run.pk for run in TaskRun.objects.all() if run.celery_id.startswith(term)}
    found = listed(staff, RUNS, q=term)
    assert {run.pk for run in found} == expected | {wanted.pk}


def plan(rows: QuerySet[Any]) -> str:
    """Return the plan by which Postgres finds these rows if it may not read the whole table."""
    with connection.cursor() as cursor:
        for scan in ("seqscan", "indexscan"):
            cursor.execute(f"SET LOCAL enable_{scan} = off")
    return rows.order_by().explain()


def test_the_search_of_runs_uses_the_index_of_ids() -> None:
    request = RequestFactory().get("/")
    rows, _ = admin.site.get_model_admin(TaskRun).get_search_results(
        request, TaskRun.objects.all(), "9f3ae529"
    )
    assert "default_celery_id_idx" in plan(rows)  # the partition's own
    assert "Seq Scan on systemtasks_taskrun" not in plan(rows)


# A row's page.


def test_a_task_shows_its_last_25_runs_newest_first(staff: Client) -> None:
    task = factories.system_task()
    runs = [run_at(task, factories.START + timedelta(minutes=n)) for n in range(30)]
    page = body(staff, page_of(task))
    table = page[page.index('<table class="st-runs"') :]
    found = [UUID(pk) for pk in re.findall(r"/taskrun/([-0-9a-f]+)/change/", table)]
    assert found == [run.pk for run in reversed(runs)][:25]
    assert f"{RUNS}?system_task={task.pk}" in page


def test_a_task_says_first_what_went_wrong(staff: Client) -> None:
    error = factories.log_event("It broke", log_level="error")
    messages = [error, factories.log_event("Cleaned up", log_level="warning")]
    task = factories.system_task(status=Status.ERROR, messages=messages)
    worst = '<pre class="st-worst st-level-error">It broke</pre>'
    assert worst in body(staff, page_of(task))
    assert 'class="st-worst' not in body(staff, page_of(factories.system_task("well")))


def test_a_log_shows_time_level_logger_attributes_and_a_long_traceback_closed(
    staff: Client,
) -> None:
    trace = "\n".join(f"line {n}" for n in range(50))
    attributes = {"step": 3, "exception": {"type": "E", "message": "m", "traceback": trace}}
    message = factories.log_event(log_level="critical", attributes=attributes)
    short = factories.log_event("Short", attributes={"text": "two\nlines"})
    page = body(staff, page_of(factories.system_task(messages=[message, short])))
    assert 'title="2024-06-01 12:00:00.500 UTC">12:00:00.500</time>' in page
    assert "Saturday, 1 June 2024, UTC" in page
    assert '<b class="st-level">critical</b>' in page
    assert "st-level-critical" in page
    assert "<i>step</i>3" in page
    assert "tests.clean_up" in page
    assert re.search(r"<details>\s*<summary>Traceback, 50 lines</summary>\s*<pre>line 0\n", page)
    assert re.search(r"<details open>\s*<summary>text, 2 lines</summary>", page)


def test_a_run_shows_its_arguments_and_the_other_attempts(staff: Client) -> None:
    task = factories.system_task()
    first = factories.task_run(task, celery_id="same", state=State.RETRY, status=Status.WARNING)
    second = factories.task_run(
        task, celery_id="same", attempt=2, wait=0.25, duration=75,
        args=[4711], kwargs={"name": "Zoë"}, arguments_intact=False,
    )  # fmt: skip
    other = factories.task_run(task, celery_id="other")
    page = body(staff, page_of(second))
    for text in ("[4711]", "{&quot;name&quot;: &quot;Zoë&quot;}", "250 ms", "1 min 15 s", "masked"):
        assert text in page
    assert page_of(first) in page
    assert page_of(other) not in page
    assert page_of(task) in page


def test_a_task_that_was_executed_six_times_says_so(staff: Client) -> None:
    task = factories.system_task()
    first = factories.task_run(task, celery_id="same", executions=6)
    last = factories.task_run(
        task, celery_id="same", number=6, redelivered=True, message=first.id
    )  # fmt: skip
    assert "Its message was executed 6 times." in body(staff, page_of(first))
    page = body(staff, page_of(last))
    assert "This is execution 6 of its message." in page
    assert (
        page.count(page_of(first)) == 3
    )  # as the first execution, in the drawing and in the table
    assert page_of(last) in body(staff, page_of(first))
    assert "execution 6" in body(staff, RUNS)


def test_a_run_is_linked_with_its_parent_and_with_those_it_replaces(staff: Client) -> None:
    task = factories.system_task()
    parent, old, new = (factories.task_run(task, celery_id=name) for name in ("a", "b", "c"))
    gone = new_uuid()
    run = factories.task_run(task, parent_run=parent.id, replaces=old.id, replaced_by=new.id)
    page = body(staff, page_of(run))
    assert all(page_of(one) in page for one in (parent, old, new))
    page = body(staff, page_of(factories.task_run(task, parent_run=gone)))
    assert str(gone) in page
    assert f"/taskrun/{gone}/" not in page


def test_arguments_that_are_not_recorded_are_said_to_be_so(staff: Client) -> None:
    run = factories.task_run(factories.system_task(), args=None, kwargs=None)
    assert "They are not recorded." in body(staff, page_of(run))


# What it costs.


def queries(client: Client, url: str) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        assert client.get(url).status_code == 200
    return [query["sql"] for query in captured.captured_queries]


def test_the_number_of_queries_does_not_grow_with_the_rows(staff: Client) -> None:
    task = factories.system_task()
    run = factories.task_run(task, celery_id="same")
    urls = (TASKS, RUNS, page_of(task), page_of(run))
    for url in urls:
        staff.get(url)  # Django keeps the content types that it has read
    few = [len(queries(staff, url)) for url in urls]
    for number in range(20):
        another = factories.system_task(f"tests.{number}")
        factories.task_run(another)
        factories.task_run(task, celery_id="same", attempt=number + 2)
    assert [len(queries(staff, url)) for url in urls] == few
    assert max(few[:2]) <= 13, few  # one of them reads the saved views
    assert max(few[2:]) <= 18, few


def test_the_lists_do_not_read_messages_or_arguments(staff: Client) -> None:
    factories.task_run(factories.system_task())
    whole = re.compile(r'"(messages|args|kwargs)"(,| FROM)')
    for url in (TASKS, RUNS):
        assert not [sql for sql in queries(staff, url) if whole.search(sql)]


def test_a_long_list_ends_after_a_bounded_count_and_says_so(
    staff: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "COUNT_LIMIT", 2)
    task = factories.system_task()
    for _ in range(2):
        factories.task_run(task)
    assert "Only the first" not in body(staff, RUNS)
    for _ in range(3):
        factories.task_run(task)
    assert "Only the first 2 are listed" in body(staff, RUNS)
    counts = [sql for sql in queries(staff, RUNS) if "count(" in sql.lower()]
    assert counts
    assert all("LIMIT 3)" in sql for sql in counts)


def test_the_values_of_a_column_are_read_from_its_index_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = factories.system_task()
    for queue in ("mail", "", "celery", "mail", "Zebra", "reports"):
        factories.task_run(task, queue=queue)
    values = counting.values_of_runs("queue")
    assert sorted(values) == ["Zebra", "celery", "mail", "reports"]
    monkeypatch.setattr(counting, "VALUE_LIMIT", 2)
    assert counting.values_of_runs("queue") == values[:2]


@pytest.mark.parametrize("order", ["4", "-4", "99", "x"])
def test_a_column_that_is_not_sorted_by_leaves_the_order_of_the_list(
    staff: Client, order: str
) -> None:
    task = factories.system_task()
    for number, minutes in enumerate([2, 3, 1]):
        start = factories.START + timedelta(minutes=minutes)
        factories.task_run(
            task, celery_id=f"run-of-{number}", start_timestamp=start, finish_timestamp=start
        )
    page = body(staff, RUNS, o=order)
    assert re.findall(r'<code title="run-of-(\d)"', page) == ["1", "0", "2"]


def test_the_values_of_a_column_are_those_of_late_unless_there_are_none() -> None:
    task = factories.system_task()
    long_ago = UUID(int=(int(time.time() - 9 * 86_400) * 1000 << 80) + 1)
    factories.task_run(task, id=long_ago, worker="gone")
    assert counting.values_of_runs("worker") == ["gone"]
    factories.task_run(task, worker="there")
    assert counting.values_of_runs("worker") == ["there"]


# The words.


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, NOTHING), (0, "0 ms"), (0.00042, "0.42 ms"), (0.34, "340 ms"), (0.9994, "999 ms"),
        (0.9999, "1.00 s"), (1.24, "1.24 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s"),
        (192, "3 min 12 s"), (3599.7, "1 h 00 min"), (7500, "2 h 05 min"), (360000, "100 h 00 min"),
    ],
)  # fmt: skip
def test_durations_are_in_the_unit_that_suits_them(seconds: float | None, text: str) -> None:
    assert duration_text(seconds) == text


def test_a_timestamp_with_an_offset_is_shown_in_utc() -> None:
    (line,) = log_lines([factories.log_event(timestamp="2024-06-01T01:00:00+02:00")])
    assert line.moment == "2024-05-31 23:00:00.000 UTC"


def test_the_worst_line_is_the_last_error_and_else_the_last_warning() -> None:
    levels = ("warning", "error", "exception", "warning", "info")
    lines = log_lines([factories.log_event(str(n), log_level=v) for n, v in enumerate(levels)])
    assert [line.event for line in (worst_line(lines), worst_line(lines[3:])) if line] == ["2", "3"]
    assert worst_line(lines[4:]) is None


def test_long_json_is_indented_and_short_json_is_not() -> None:
    assert pretty({"a": [1, "ü"]}) == '{"a": [1, "ü"]}'
    assert pretty({"a": "x" * 100}) == '{\n  "a": "' + "x" * 100 + '"\n}'


BIDI = "pay\u202egnp.exe\u2066\x1b[31m\x00\x9b\u2028\u200b\ufeff\r!\U000e0041"
SHOWN = (
    "pay[U+202E]gnp.exe[U+2066][U+001B][31m[U+0000][U+009B][U+2028][U+200B][U+FEFF][U+000D]!"
    "[U+E0041]"
)
STORED = BIDI.replace("\0", "")
"""Postgres has no NUL in a text."""


def test_characters_that_change_how_others_look_are_shown(staff: Client) -> None:
    message = factories.log_event(
        STORED, logger=STORED, attributes={STORED: STORED, f"long {STORED}": f"{STORED}\n{STORED}"}
    )
    texts = {"name": STORED, "uid": STORED, "description": STORED}
    task = factories.system_task(**texts, status=Status.ERROR, messages=[message])
    names = ("queue", "worker", "sender", "parent_id", "exception")
    run = factories.task_run(
        task,
        celery_id=STORED,
        **dict.fromkeys(names, STORED),
        args=[STORED],
        kwargs={STORED: STORED},
        context={STORED: STORED},
        messages=[message],
    )
    for url in (TASKS, RUNS, page_of(task), page_of(run), f"{RUNS}?q={quote(STORED)}"):
        page = body(staff, url)
        assert "pay[U+202E]gnp.exe[U+2066][U+001B][31m" in page
        unseen = {char for char in page if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp")}
        assert unseen <= {"\n", "\t"}


def test_each_unseen_character_has_a_name_and_others_stay() -> None:
    assert with_unseen_shown(BIDI) == SHOWN
    seen = "tab\t, lines\r\n, ü, עברית, العربية, 👩\u200d🚀, \u0928\u200d"
    assert with_unseen_shown(seen) == seen


# The other look.


@pytest.mark.slow
@pytest.mark.skipif(not apps.is_installed("unfold"), reason="This is another look already")
@pytest.mark.parametrize("look", ["plain_admin", "jazzmin"])
def test_all_of_this_holds_in_another_look(look: str) -> None:
    names = ("test_words.py", "admin_parts")
    files = [__file__, *(str(Path(__file__).with_name(name)) for name in names)]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    command += [f"--ds=tests.systemtasks.{look}_settings"]
    done = subprocess.run(
        command, cwd=settings.BASE_DIR, env=dict(os.environ), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_schedule_is_listed_and_is_on_the_page_of_its_task(staff: Client) -> None:
    task = factories.system_task("demo.sync", "ldap")
    due = timezone.now() + timedelta(hours=3, minutes=5)
    ScheduleEntry.objects.create(
        app="demo", entry="nightly", task="demo.sync", uid="ldap", words="every day", next_due=due
    )
    ScheduleEntry.objects.create(app="demo", entry="switched-off", task="demo.end", enabled=False)

    page = body(staff, "/admin/systemtasks/scheduleentry/")
    assert "demo.sync:ldap" in page
    assert "3\N{NO-BREAK SPACE}hours from now" in page
    assert "switched-off" in page
    assert "switched-off" not in body(staff, "/admin/systemtasks/scheduleentry/?enabled=yes")
    page = body(staff, f"{TASKS}{task.pk}/change/")
    assert "every day" in page
    assert "3\N{NO-BREAK SPACE}hours from now" in page


def test_list_of_apps_has_our_pages_in_the_order_in_which_they_are_needed(staff: Client) -> None:
    page = staff.get("/admin/systemtasks/systemtask/")
    [ours] = [app for app in page.context["available_apps"] if app["app_label"] == "systemtasks"]
    assert [model["name"] for model in ours["models"]][:8] == [
        "Home", "Failing", "Running", "Queues", "Workers", "Tasks", "Runs", "Schedule",
    ]  # fmt: skip
    for model in ours["models"]:
        assert staff.get(model["admin_url"].partition("#")[0]).status_code == 200


def test_list_of_apps_has_no_page_that_the_user_may_not_see() -> None:
    client = Client()
    client.force_login(factories.user("runs", "view_taskrun", is_staff=True))
    page = client.get("/admin/systemtasks/taskrun/")
    [ours] = [app for app in page.context["available_apps"] if app["app_label"] == "systemtasks"]
    assert [model["name"] for model in ours["models"]] == ["Running", "Runs"]


@pytest.mark.skipif(apps.is_installed("unfold"), reason="The index of the service is its home page")
def test_home_is_one_click_away_from_the_index_of_a_project(staff: Client) -> None:
    page = staff.get("/admin/")
    assert "systemtasks/home.html" not in [template.name for template in page.templates]
    assert 'href="/admin/systemtasks/systemtask/home/"' in page.content.decode()


def test_the_default_order_is_the_same_where_the_tasks_are_too_many_to_sort(
    staff: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        # Those without a run have the newest start of all.
        start = factories.START + timedelta(hours=number)
        factories.system_task(
            f"t{number}",
            start_timestamp=start,
            finish_timestamp=start,
            sort_timestamp=None if number in (2, 5) else start,
        )
    expected = ["t4", "t3", "t1"]
    assert [task.name for task in listed(staff, TASKS)][:3] == expected
    monkeypatch.setattr(counting, "COUNT_LIMIT", 3)
    assert [task.name for task in listed(staff, TASKS)] == expected
    [sql] = [sql for sql in queries(staff, TASKS) if "LIMIT 3" in sql and "ORDER BY" in sql][:1]
    assert "CASE" not in sql


def test_a_list_of_tasks_without_a_search_does_not_read_the_texts_of_the_search(
    staff: Client,
) -> None:
    factories.system_task()
    assert not [sql for sql in queries(staff, TASKS) if "searchtext" in sql]


def test_a_task_is_found_by_the_search_for_a_field_of_another_model(staff: Client) -> None:
    task = factories.system_task("shop.charge")
    query = {"app_label": "systemtasks", "model_name": "taskrun", "field_name": "system_task"}
    answer = staff.get("/admin/autocomplete/", {**query, "term": "charge"})
    assert [one["id"] for one in answer.json()["results"]] == [str(task.pk)]
