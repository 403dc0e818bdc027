"""The export of what a list's filters leave."""

import csv
import json
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from systemtasks.admin_parts import counting, export
from systemtasks.models import ScheduleEntry, TaskRun
from systemtasks.states import State, Status
from tests import factories
from tests.systemtasks.test_admin import RUNS, TASKS, body, page_of, run_at, viewer

pytestmark = pytest.mark.django_db


def exported(client: Client, url: str, kind: str = "ndjson", **query: str) -> list[dict[str, Any]]:
    answer = client.get(f"{url}export.{kind}", query)
    assert answer.status_code == 200
    assert answer.streaming
    text = b"".join(answer.streaming_content).decode()  # type: ignore[attr-defined]
    if kind == "csv":
        return list(csv.DictReader(StringIO(text)))
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("kind", ["csv", "ndjson"])
def test_export_has_the_rows_that_the_filters_leave(staff: Client, kind: str) -> None:
    task = factories.system_task("demo.sync", "ldap")
    factories.task_run(task, celery_id="well")
    failed = factories.task_run(
        task, celery_id="failed", status=Status.ERROR, state=State.FAILURE,
        exception="E: no\nsecond line", context={"tenant": "acme"}, duration=1.5,
    )  # fmt: skip
    (row,) = exported(staff, RUNS, kind, status="error")
    assert row["id"] == str(failed.pk)
    assert (row["task"], row["uid"], row["celery_id"]) == ("demo.sync", "ldap", "failed")
    assert row["exception"] == "E: no\nsecond line"
    assert row["start_timestamp"].startswith("2024-06-01T12:00:00")
    assert float(row["duration"]) == 1.5
    context = row["context"] if kind == "ndjson" else json.loads(row["context"])
    assert context == {"tenant": "acme"}


def test_tasks_and_the_schedule_can_be_exported_as_well(staff: Client) -> None:
    factories.system_task("demo.ran", messages=[factories.log_event("Done")])
    factories.system_task("demo.known", sort_timestamp=None, duration=0)
    ScheduleEntry.objects.create(app="a", entry="nightly", task="demo.ran", words="every day")
    rows = {row["name"]: row for row in exported(staff, TASKS)}
    assert (rows["demo.ran"]["last_message"], rows["demo.ran"]["duration"]) == ("Done", 1.25)
    assert rows["demo.known"]["duration"] is None
    assert rows["demo.known"]["start_timestamp"] is None
    (entry,) = exported(staff, "/admin/systemtasks/scheduleentry/", "csv")
    assert (entry["entry"], entry["words"]) == ("nightly", "every day")


def test_links_to_the_export_keep_the_filters_of_the_page(staff: Client) -> None:
    page = body(staff, RUNS, status="error", q="x", p="3")
    assert 'href="export.csv?q=x&amp;status=error"' in page
    assert 'href="export.ndjson?q=x&amp;status=error"' in page


def test_rows_are_read_in_pages_without_one_too_many_or_too_few(
    staff: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PAGE", 3)
    task = factories.system_task()
    for number in range(8):  # some begin at the same time, and some have not begun
        run_at(task, factories.START + timedelta(hours=number // 3))
    for _ in range(4):
        run_at(task, None, state=State.QUEUED, status=Status.UNKNOWN)
    expected = [str(run.pk) for run in TaskRun.objects.newest_first()]
    with CaptureQueriesContext(connection) as captured:
        assert [row["id"] for row in exported(staff, RUNS)] == expected
    reads = [query["sql"] for query in captured if "celery_id" in query["sql"]]
    assert len(reads) >= 6
    assert all("LIMIT 3" in sql for sql in reads)
    assert not any("messages" in sql or '"args"' in sql for sql in reads)


def test_export_ends_after_the_newest_rows_and_the_menu_says_so(
    staff: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = factories.system_task()
    runs = [run_at(task, factories.START + timedelta(hours=n)) for n in range(4)]
    assert "at most" not in body(staff, RUNS)
    monkeypatch.setattr(export, "EXPORT_LIMIT", 2)
    monkeypatch.setattr(counting, "COUNT_LIMIT", 2)
    assert [row["id"] for row in exported(staff, RUNS)] == [str(run.pk) for run in runs[:1:-1]]
    assert "The newest 100,000 at most" in body(staff, RUNS)


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r\n", "\n", " =", "\uff1d", "\uff20"])
def test_text_in_csv_is_never_a_formula(staff: Client, sign: str) -> None:
    attack = f'{sign}HYPERLINK("http://evil.example","x")'
    task = factories.system_task(f"t{sign}", description=attack)
    factories.task_run(
        task, celery_id=attack, queue=attack, worker=attack, exception=attack, sender=attack
    )
    (row,) = exported(staff, RUNS, "csv")
    for name in ("celery_id", "queue", "worker", "exception", "sender"):
        assert row[name].startswith("'"), name
    assert exported(staff, TASKS, "csv")[0]["description"].startswith("'")
    (exact,) = exported(staff, RUNS)
    assert exact["celery_id"] == attack


def test_number_in_csv_stays_a_number() -> None:
    assert export.csv_cell(-1.5) == -1.5
    assert export.csv_cell("5 = five") == "5 = five"


def test_who_may_not_view_may_not_export() -> None:
    run = factories.task_run(factories.system_task())
    client = viewer("systemtask")
    assert client.get(f"{RUNS}export.csv").status_code == 403
    assert client.get(f"{TASKS}export.csv").status_code == 200
    assert Client().get(f"{RUNS}export.csv").status_code == 302
    assert client.get(page_of(run)).status_code == 403


@pytest.mark.parametrize("query", [{"status": "failed"}, {"name": "x"}, {"q": "\0"}])
def test_export_of_a_filter_that_is_wrong_is_refused(staff: Client, query: dict[str, str]) -> None:
    answer = staff.get(f"{RUNS}export.csv", query)
    assert answer.status_code == 400
    page = answer.content.decode()
    assert "A filter in the address is wrong, so nothing is exported." in page
    assert "logout" in page  # the look of the admin, with its header


def test_there_is_no_other_format(staff: Client) -> None:
    assert staff.get(f"{RUNS}export.xlsx").status_code == 404
