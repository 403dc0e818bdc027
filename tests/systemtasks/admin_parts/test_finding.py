"""What a search for runs finds: ids as they are pasted, tasks, and senders' contexts."""

import re
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from django.contrib import admin
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from systemtasks.admin_parts import finding
from systemtasks.admin_parts.finding import WORDS_LIMIT
from systemtasks.ids import first_id
from systemtasks.models import SystemTask, TaskRun
from systemtasks.states import State, Status
from tests import factories
from tests.systemtasks.test_admin import RUNS, TASKS, body, listed, run_at

pytestmark = pytest.mark.django_db

ID = "9f3ae529-0b1c-4c5e-8d27-6a1f4be0c9d9"
PART = "6a1f4be0"


@pytest.fixture
def run() -> TaskRun:
    """Return a run that is found, among others that are not."""
    now = timezone.now()
    other = factories.system_task("demo.other")
    run_at(other, now, celery_id="0c9f3ae5", context={"tenant": "other"})
    wanted = factories.system_task("shop.charge_card", "eu")
    return run_at(wanted, now, celery_id=ID, context={"tenant": "acme", "order": 4711})


@pytest.mark.parametrize(
    "text",
    [
        f"shop.charge_card[{ID}]",
        f"Task shop.charge_card[{ID}] succeeded in 0.01s: None",
        f"[2026-11-27 03:00:00,000: INFO/MainProcess] Task shop.charge_card[{ID}] received",
        f"any.other.name[{ID[:8]}]",
        ID.upper(),
        ID[:8].upper(),
        ID.replace("-", ""),
        f"  {ID}  ",
        "shop.charge_card:eu",
        "charge eu",
    ],
)
def test_run_is_found_by_what_one_has_at_hand(staff: Client, run: TaskRun, text: str) -> None:
    assert listed(staff, RUNS, q=text) == [run]


def test_run_is_found_by_its_own_id(staff: Client, run: TaskRun) -> None:
    assert listed(staff, RUNS, q=str(run.pk).upper()) == [run]


def test_id_that_is_not_a_uuid_is_found_in_its_own_case(staff: Client) -> None:
    run = factories.task_run(factories.system_task(), celery_id="Order-A7")
    assert listed(staff, RUNS, q="Order-A") == [run]
    assert listed(staff, RUNS, q="demo.x[Order-A7]") == [run]


@pytest.mark.parametrize("text", [PART, PART.upper(), "4c5e", "tenant:acme", "order:4711"])
def test_part_of_an_id_and_a_context_are_found_in_a_day(
    staff: Client, run: TaskRun, text: str
) -> None:
    assert listed(staff, RUNS, q=text) == []
    page = body(staff, RUNS, q=text)
    assert "Search the past 24 hours" in page
    assert listed(staff, RUNS, q=text, started="week") == []
    assert listed(staff, RUNS, q=text, started="day") == [run]
    assert "Search the past 24 hours" not in body(staff, RUNS, q=text, started="day")
    day = {"from": f"{timezone.now() - timedelta(hours=3):%Y-%m-%dT%H:%M}"}
    assert listed(staff, RUNS, q=text, **day) == [run]


def test_context_of_another_tenant_is_not_found(staff: Client, run: TaskRun) -> None:
    for text in ("tenant:acm", "tenant:ACME", "order:471", "acme:tenant"):
        assert listed(staff, RUNS, q=text, started="day") == []


def test_name_with_an_id_finds_its_task(staff: Client, run: TaskRun) -> None:
    found = listed(staff, TASKS, q=f"Task shop.charge_card[{ID}] raised")
    assert found == [run.system_task]


def test_search_without_a_span_reads_no_column_without_an_index() -> None:
    model_admin = admin.site.get_model_admin(TaskRun)
    with connection.cursor() as cursor:
        for scan in ("seqscan", "indexscan"):
            cursor.execute(f"SET LOCAL enable_{scan} = off")
    request = RequestFactory().get("/")
    for text in (ID, ID.upper(), PART, "tenant:acme", f"demo.x[{ID}]", "charge card", "... a b"):
        rows, _ = model_admin.get_search_results(request, TaskRun.objects.all(), text)
        assert "Seq Scan" not in rows.order_by().explain(), text


def test_queued_run_is_found_by_its_id_whatever_the_span(staff: Client) -> None:
    run = run_at(
        factories.system_task(), None, celery_id=ID, state=State.QUEUED, status=Status.UNKNOWN
    )
    assert listed(staff, RUNS, q=ID.upper()) == [run]


@pytest.mark.parametrize(
    "text", ["timed out", "TIMED", '"read timed out"', "bank:443", "out after 30", "out 30 of 7 s"]
)
def test_failed_runs_are_found_by_the_words_of_their_error(staff: Client, text: str) -> None:
    task, now = factories.system_task("shop.sync"), timezone.now()
    error = "ReadTimeout: bank:443: Read timed out after 30 of 7 s"
    failed = run_at(task, now, exception=error, state=State.FAILURE, status=Status.ERROR)
    run_at(task, now, exception="E: out, and timely", state=State.FAILURE, status=Status.ERROR)
    run_at(task, now)
    assert listed(staff, RUNS, q=text) == [failed]
    assert listed(staff, RUNS, q=text, status="successful") == []


@pytest.mark.parametrize("text", ["of", "7 s", "_ab_", "...", "a-b"])
def test_words_that_no_index_has_search_no_errors_and_the_list_says_so(
    staff: Client, text: str
) -> None:
    run_at(
        factories.system_task("demo"), timezone.now(), exception=f"E: 7 s of _ab_ a-b ... {text}"
    )
    page = body(staff, RUNS, q=text)
    assert "Errors are only found by three letters or digits in a row." in page
    assert '<small data-live="count">0</small>' in page
    assert "three letters" not in body(staff, RUNS, q="demo")


def test_errors_are_searched_for_a_bounded_number_of_words(staff: Client) -> None:
    run = run_at(factories.system_task("demo"), timezone.now(), exception="E: timed out")
    assert listed(staff, RUNS, q=" ".join(["timed"] * WORDS_LIMIT)) == [run]
    page = body(staff, RUNS, q=" ".join(["timed"] * (WORDS_LIMIT + 1)))
    assert "up to 32 words" in page
    assert '<small data-live="count">0</small>' in page


def test_words_of_an_error_are_found_by_its_index() -> None:
    with connection.cursor() as cursor:
        for scan in ("seqscan", "indexscan"):
            cursor.execute(f"SET LOCAL enable_{scan} = off")
    plan = TaskRun.objects.with_error(["timed", "out"]).order_by().explain()
    assert re.search(r"Bitmap Index Scan on \w*(upper|exception)", plan)


def test_of_a_frequent_error_the_newest_runs_are_found_and_the_list_says_so(
    staff: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("admin_parts.finding", "admin"):
        monkeypatch.setattr(f"systemtasks.{module}.ERRORS_LIMIT", 2)
    task, now = factories.system_task("demo"), timezone.now()
    runs = [
        run_at(task, now - timedelta(days=days), exception=f"E: timed out {days}", id=at(now, days))
        for days in (1, 5, 20, 40)
    ]
    assert listed(staff, RUNS, q="timed out") == runs[:2]
    assert "By their error, the newest 2 runs are found." in body(staff, RUNS, q="timed out")
    assert listed(staff, RUNS, q="out 40") == runs[3:]
    assert "By their error" not in body(staff, RUNS, q="out 40")


def at(now: datetime, days: int) -> UUID:
    """Return the id of a run that was sent so many days ago."""
    return UUID(int=first_id(now - timedelta(days=days)).int + (7 << 76) + days)


def test_whole_id_is_not_looked_for_in_errors(staff: Client) -> None:
    run_at(factories.system_task(), timezone.now(), exception=f"E: no run {ID}")
    assert listed(staff, RUNS, q=ID) == []
    with CaptureQueriesContext(connection) as captured:
        body(staff, RUNS, q=ID)
    assert not [one for one in captured if "exception" in one["sql"].partition("WHERE")[2]]


def test_words_that_very_many_tasks_have_are_looked_for_in_those_that_ran_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = [factories.system_task(f"shop.fetch_{number}") for number in range(4)]
    factories.search_texts()
    assert {*finding._named(["fetch"])} == {task.pk for task in made}
    monkeypatch.setattr(finding, "CANDIDATES", 3)
    monkeypatch.setattr(finding, "NEWEST_TASKS", 2)
    newest = SystemTask.objects.order_by("-start_timestamp").values_list("uuid", flat=True)
    assert {*finding._named(["fetch"])} == {*newest[:2]}
    assert finding._named(["fetch_1"]) == [made[1].pk]


def test_a_task_is_found_by_its_name_before_its_text_is_written_for_the_search() -> None:
    task = factories.system_task("shop.fetch", "eu-1")
    for words in (["fetch"], ["shop.fetch:eu"], ["FETCH", "eu-1"], ["h"]):
        assert finding._named(words) == [task.pk]
    assert finding._named(["fetch", "eu-2"]) == []
