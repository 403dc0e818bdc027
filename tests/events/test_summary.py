"""GET /api/v3/events/task_runs/summary/."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import current_app
from celery.schedules import crontab
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils.dateparse import parse_datetime

from events.summary import turn
from systemtasks.models import SystemTask
from systemtasks.states import Status
from tests import factories
from tests.events.conftest import client_of

URL = "/api/v3/events/task_runs/summary/"
MAY, JULY = "2024-05-31T00:00:00Z", "2024-07-01T00:00:00Z"
"""31 days, and the rows of the factories in them."""
pytestmark = pytest.mark.django_db


@pytest.fixture
def historian(db: None) -> Client:
    """Somebody who may view runs."""
    return client_of("historian", "view_taskrun")


def summary(client: Client, **query: Any) -> list[dict[str, Any]]:
    answer = client.get(URL, query)
    assert answer.status_code == 200, answer.content
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def test_runs_are_added_up_a_task(historian: Client) -> None:
    task = factories.system_task()
    for seconds in range(1, 101):
        factories.task_run(
            task, duration=seconds, status=Status.ERROR if seconds > 97 else Status.SUCCESSFUL
        )
    factories.task_run(task, state="running", status="unknown", finish_timestamp=None)
    factories.task_run(factories.system_task("another"))
    another, ours = summary(historian, started_from=MAY, started_until=JULY)
    assert another["name"] == "another"
    assert ours == {
        "system_task": str(task.uuid),
        "name": task.name,
        "uid": "",
        "runs": 100,
        "failures": 3,
        "duration_p50": 50.5,
        "duration_p95": pytest.approx(95.05),
        "duration_max": 100.0,
        "last_success": "2024-06-01T12:00:01.250000Z",
        "next_run": None,
    }


def test_the_span_is_the_last_day_unless_it_is_said(historian: Client) -> None:
    now = datetime.now(UTC)
    for name, ago in (("old", timedelta(days=2)), ("new", timedelta(hours=1))):
        task = factories.system_task(name, start_timestamp=now - ago, finish_timestamp=now)
        factories.task_run(task)
    assert [row["name"] for row in summary(historian)] == ["new"]
    from_then = (now - timedelta(days=3)).isoformat()
    until = (now - timedelta(days=1)).isoformat()
    assert [r["name"] for r in summary(historian, started_from=from_then)] == ["new", "old"]
    span = summary(historian, started_from=from_then, started_until=until)
    assert [row["name"] for row in span] == ["old"]
    assert [r["name"] for r in summary(historian, started_from=from_then, name="old")] == ["old"]


@pytest.mark.parametrize("field", ["started_from", "started_until"])
@pytest.mark.parametrize("time", ["", "yesterday", "٢٠٢٤-06-01T12:00:00Z", "2024-06-01x12:00:00Z"])
def test_a_malformed_time_is_400(historian: Client, field: str, time: str) -> None:
    answer = historian.get(URL, {field: time})
    assert answer.status_code == 400
    assert sorted(answer.json()) == ["code", field]


def test_beat_says_when_a_task_runs_next(
    historian: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    for name, uid in (("every", ""), ("every", "uid"), ("yearly", ""), ("late", "")):
        started = now - timedelta(minutes=10)
        task = factories.system_task(name, uid, start_timestamp=started, finish_timestamp=now)
        factories.task_run(task)
    entries = {
        "a": {"task": "every", "schedule": 3600.0},
        "b": {"task": "every", "schedule": 7200.0},
        "c": {"task": "yearly", "schedule": crontab("0", "0", day_of_month="1", month_of_year="1")},
        "d": {"task": "late", "schedule": 60.0},
    }
    monkeypatch.setitem(current_app.conf, "beat_schedule", entries)
    rows = {(row["name"], row["uid"]): row["next_run"] for row in summary(historian)}
    every, late = (parse_datetime(rows[name, ""]) for name in ("every", "late"))
    assert every is not None
    assert late is not None
    assert abs(every - (now + timedelta(minutes=50))) < timedelta(minutes=1)
    assert late == (now - timedelta(minutes=9)).replace(microsecond=0)
    assert rows["yearly", ""].endswith("-01-01T00:00:00Z")
    assert rows["every", "uid"] is None


def test_the_next_run_counts_from_the_last_that_beat_sent(
    historian: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = {
        name: {"task": name, "schedule": 3600.0} for name in ("manual", "old", "past", "sent")
    }
    monkeypatch.setitem(current_app.conf, "beat_schedule", entries)
    now = datetime.now(UTC).replace(microsecond=900_000)
    hour, beat = timedelta(hours=1), "celerybeat@host"
    for name in entries:
        factories.system_task(name)

    def ran(name: str, ago: timedelta, sender: str, **fields: Any) -> None:
        task = SystemTask.objects.get(name=name)
        times = {"start_timestamp": now - ago, "finish_timestamp": now - ago}
        factories.task_run(task, sender=sender, **{**times, **fields})

    ran("manual", hour / 2, beat)
    ran("manual", hour / 3, beat, attempt=2)  # a retry
    ran("manual", hour / 4, "gen1@host")
    ran("old", hour / 2, "gen1@host")
    ran("past", hour * 30, beat)
    ran("past", hour / 2, beat)
    ran("sent", hour / 4, beat, sent_timestamp=now - hour / 2)
    expected = (now + hour / 2).replace(microsecond=0)
    span = {"started_from": (now - hour * 40).isoformat()}
    for until in (now, now - hour * 20):
        rows = summary(historian, **span, started_until=until.isoformat())
        assert {parse_datetime(row["next_run"]) for row in rows} == {expected}
    assert [row["name"] for row in rows] == ["past"]
    assert with_queries(historian, 1) == with_queries(historian, 4)


def with_queries(client: Client, rows: int) -> int:
    """How many queries a page of that many rows takes."""
    with CaptureQueriesContext(connection) as queries:
        assert len(summary(client, page_size=rows)) == rows
    return len(queries)


def test_a_summary_has_pages(historian: Client) -> None:
    for number in range(3):
        factories.task_run(factories.system_task(f"t{number}"))
    span = f"started_from={MAY}&started_until={JULY}"
    answer = historian.get(f"{URL}?{span}&page=2&page_size=2").json()
    assert [row["name"] for row in answer["results"]] == ["t2"]
    assert answer["pagination"]["total_pages"] == 2


@pytest.mark.parametrize(
    "span",
    [
        {"started_from": "1970-01-01"},
        {"started_from": "2024-05-30T23:59:59Z", "started_until": JULY},
        {"started_from": "1970-01-01", "started_until": "9999-12-31"},
        {"started_until": "9999-12-31", "started_from": "0001-01-01", "name": "tests.clean_up"},
    ],
)
def test_a_span_of_more_than_31_days_is_400_without_a_look_at_the_runs(
    historian: Client, span: dict[str, str]
) -> None:
    with CaptureQueriesContext(connection) as queries:
        answer = historian.get(URL, span)
    assert answer.status_code == 400
    assert answer.json() == {
        "started_from": ["A summary covers 31 days at the most."],
        "code": "invalid",
    }
    assert [query for query in queries if "systemtasks_taskrun" in query["sql"]] == []


def test_a_span_without_an_end_ends_now(historian: Client) -> None:
    start = (timezone.now() - timedelta(days=30)).isoformat()
    assert summary(historian, started_from=start, started_until="9999-12-31") == []
    assert summary(historian, started_from="9999-12-31") == []


def test_one_summary_at_a_time_is_made(historian: Client) -> None:
    with turn():
        answer = historian.get(URL)
        assert answer.status_code == 503
        assert answer.json() == {
            "detail": "Other summaries are made at this moment.",
            "code": "service_unavailable",
        }
        assert answer["Retry-After"] == "1"
        assert historian.get(URL, {"started_from": "1970-01-01"}).status_code == 400
    assert summary(historian) == summary(historian) == []
