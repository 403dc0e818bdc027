"""GET /api/v3/events/task_runs/summary/."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from events.summary import turn
from systemtasks.models import ScheduleEntry
from systemtasks.states import Status
from tests import factories
from tests.events.conftest import client_of

URL = "/api/v3/events/task_runs/summary/"
MAY, JULY = "2024-05-31T00:00:00Z", "2024-07-01T00:00:00Z"
"""31 days, and the rows of the factories in them."""
pytestmark = pytest.mark.django_db


@pytest.fixture
def historian(db: None) -> Client:
    """Return a client whose user may view runs."""
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
        "duration_p50": pytest.approx(50, rel=0.045),
        "duration_p95": pytest.approx(95, rel=0.045),
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


def scheduled(entry: str, task: str, due: datetime | None, **fields: Any) -> None:
    ScheduleEntry.objects.create(app="shop", entry=entry, task=task, next_due=due, **fields)


def test_next_run_is_the_earliest_of_what_beat_has_on_its_schedule(historian: Client) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    hour = timedelta(hours=1)
    for name, uid in (("every", ""), ("every", "ldap"), ("ended", ""), ("off", ""), ("not", "")):
        started = now - timedelta(minutes=10)
        task = factories.system_task(name, uid, start_timestamp=started, finish_timestamp=now)
        factories.task_run(task)
    scheduled("a", "every", now + 2 * hour)
    scheduled("b", "every", now + hour)
    scheduled("c", "every", now - hour, uid="ldap")  # beat is late
    scheduled("d", "ended", None)
    scheduled("e", "off", now + hour, enabled=False)

    rows = {(row["name"], row["uid"]): row["next_run"] for row in summary(historian)}
    assert rows == {
        ("every", ""): f"{now + hour:%Y-%m-%dT%H:%M:%S}Z",
        ("every", "ldap"): f"{now - hour:%Y-%m-%dT%H:%M:%S}Z",
        ("ended", ""): None,
        ("off", ""): None,
        ("not", ""): None,
    }
    assert with_queries(historian, 1) == with_queries(historian, 5)


def with_queries(client: Client, rows: int) -> int:
    """Return the number of queries for a page of this many rows."""
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
        {"started_from": "2024-03-30T23:59:59Z", "started_until": JULY},
        {"started_from": "1970-01-01", "started_until": "9999-12-31"},
        {"started_until": "9999-12-31", "started_from": "0001-01-01", "name": "tests.clean_up"},
    ],
)
def test_a_span_of_more_than_92_days_is_400_without_a_look_at_the_runs(
    historian: Client, span: dict[str, str]
) -> None:
    with CaptureQueriesContext(connection) as queries:
        answer = historian.get(URL, span)
    assert answer.status_code == 400
    assert answer.json() == {
        "started_from": ["A summary covers 92 days at the most."],
        "code": "invalid",
    }
    assert [query for query in queries if "systemtasks_taskrun" in query["sql"]] == []


def test_a_span_without_an_end_ends_now(historian: Client) -> None:
    start = (datetime.now(UTC) - timedelta(days=30)).isoformat()
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
        for page in ({"page": "x"}, {"page": "0"}, {"page_size": "x"}):
            assert historian.get(URL, page).status_code == 400
    assert summary(historian) == summary(historian) == []
