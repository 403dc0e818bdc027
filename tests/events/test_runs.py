"""GET /api/v3/events/task_runs/: the history of every run, page by page."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext, override_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from events import filters, pagination
from events.filters import RUN_ORDERINGS
from systemtasks.ids import new_uuid
from systemtasks.models import SystemTask, TaskRun
from systemtasks.runs.journal_line import id_text
from systemtasks.states import State, Status
from tests import factories
from tests.events.conftest import client_of

URL = "/api/v3/events/task_runs/"
pytestmark = pytest.mark.django_db
QUEUED = {"state": "queued", "status": "unknown", "start_timestamp": None, "finish_timestamp": None}
NO_RUN = "01a21f95-f4b2-7fc3-90a6-e77cafb7a77c"  # the id of none
A_DAY = {"started_from": "2024-06-01T00:00:00Z", "started_until": "2024-06-02T00:00:00Z"}


@pytest.fixture
def historian(db: None) -> Client:
    """Return a client whose user may view runs."""
    return client_of("historian", "view_taskrun")


@pytest.fixture
def task(db: None) -> SystemTask:
    return factories.system_task()


def found(client: Client, **query: Any) -> list[str]:
    answer = client.get(URL, query)
    assert answer.status_code == 200, answer.content
    return [run["celery_id"] for run in answer.json()["results"]]


def test_a_run_is_found_by_the_id_that_delay_returned(historian: Client, task: SystemTask) -> None:
    factories.task_run(task)
    run = factories.task_run(
        task,
        celery_id="wanted",
        args=[1],
        kwargs={"a": None},
        duration=1.25,
        messages=[factories.log_event()],
        worker="w1",
    )
    [row] = historian.get(URL, {"celery_id": "wanted"}).json()["results"]
    assert row == {
        "id": str(run.id),
        "system_task": str(task.uuid),
        "name": "tests.clean_up",
        "uid": "",
        "celery_id": "wanted",
        "attempt": 1,
        "number": 1,
        "redelivered": False,
        "replaces": None,
        "replaced_by": None,
        "state": "success",
        "status": "successful",
        "queue": "celery",
        "worker": "w1",
        "sender": "",
        "parent_id": "",
        "parent_run": None,
        "root_id": "wanted",
        "sent_timestamp": None,
        "eta_timestamp": None,
        "start_timestamp": "2024-06-01T12:00:00Z",
        "finish_timestamp": "2024-06-01T12:00:01.250000Z",
        "wait": None,
        "duration": 1.25,
        "args": [1],
        "kwargs": {"a": None},
        "context": {},
        "exception": "",
        "messages": [factories.log_event()],
        "expires": None,
    }
    assert historian.get(f"{URL}{run.id}/").json() == row


def test_arguments_that_are_not_on_record_are_null(historian: Client, task: SystemTask) -> None:
    run = factories.task_run(task, args=None, kwargs=None)
    body = historian.get(f"{URL}{run.id}/").json()
    assert (body["args"], body["kwargs"]) == (None, None)


def test_every_filter_narrows_the_list(historian: Client, task: SystemTask) -> None:
    other = factories.system_task("tests.other", "uid")
    factories.task_run(
        other,
        celery_id="wanted",
        state=State.FAILURE,
        status=Status.ERROR,
        worker="w2",
        queue="slow",
        start_timestamp=factories.START + timedelta(hours=1),
        finish_timestamp=factories.START + timedelta(hours=2),
        duration=3600,
        parent_id="parent",
        root_id="root",
    )
    factories.task_run(task, duration=1)
    for query in (
        {"system_task": other.uuid},
        {"name": "tests.other"},
        {"uid": "uid"},
        {"celery_id": "wanted"},
        {"parent_id": "parent"},
        {"root_id": "root"},
        {"state": "failure"},
        {"status": "error"},
        {"worker": "w2"},
        {"queue": "slow"},
        {"started_from": "2024-06-01T13:00:00Z"},
        {"started_from": "2024-06-01T12:30:00Z", "started_until": "2024-06-01T14:00:00Z"},
        {"min_duration": "3600"},
    ):
        assert found(historian, **query) == ["wanted"], query
    assert "wanted" not in found(historian, started_until="2024-06-01T13:00:00Z")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"system_task": "x"}, "system_task"),
        ({"system_task": ""}, "system_task"),
        ({"system_task": " \x1f"}, "system_task"),
        ({"system_task": "dd272968205258159774_e2d11bc3f3b"}, "system_task"),
        ({"system_task": "{dd272968-2052-5815-9774-ce2d11bc3f3b}"}, "system_task"),
        ({"started_until": ""}, "started_until"),
        ({"min_duration": ""}, "min_duration"),
        ({"started_from": "0001-01-01T00:00:00+17:34"}, "started_from"),
        ({"started_from": "٢٠٢٤-06-01T12:00:00Z"}, "started_from"),
        ({"started_until": "2024-06-01x12:00:00Z"}, "started_until"),
        ({"min_duration": "NaN"}, "min_duration"),
        ({"min_duration": "1_000"}, "min_duration"),
        ({"min_duration": "١٢"}, "min_duration"),
        ({"min_duration": " 12"}, "min_duration"),
        ({"min_duration": "1e400"}, "min_duration"),
        ({"state": "SUCCESS"}, "state"),
        ({"status": ""}, "status"),
        ({"started_from": "yesterday"}, "started_from"),
        ({"min_duration": "x"}, "min_duration"),
        ({"ordering": "args"}, "ordering"),
        ({"page": "0"}, "page"),
        ({"after": ""}, "after"),
        ({"after": "x"}, "after"),
        ({"after": "W10"}, "after"),
    ],
)
def test_a_malformed_parameter_is_400(historian: Client, query: dict[str, str], field: str) -> None:
    answer = historian.get(URL, query)
    assert answer.status_code == 400
    assert sorted(answer.json()) == sorted([field, "code"])


def span_for(ordering: str) -> dict[str, str]:
    """Return the parameters without which the order is refused."""
    return {} if ordering.removeprefix("-") == "id" else A_DAY


def base64_of(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def assert_refused(client: Client, after: str, **query: Any) -> None:
    answer = client.get(URL, {"after": after, **query})
    assert answer.status_code == 400, answer.content
    assert sorted(answer.json()) == ["after", "code"]


@pytest.mark.parametrize(
    "cursor",
    [
        [2, "-start_timestamp", "0001-01-01T00:00:00+23:59", 5],
        [2, "-start_timestamp", "9999-12-31T23:59:59-23:59", 5],
        [2, "-duration", True, 5],
        [2, "-duration", "1e3", 5],
        [2, "-id", 5.5, 5],
        [2, "-id", "5", 5],
        [10**11, "-id", 5, 5],
    ],
)
@pytest.mark.usefixtures("mixed")
def test_a_cursor_of_somebody_elses_making_is_400(historian: Client, cursor: list[Any]) -> None:
    _, order, *_ = cursor
    query = {"ordering": order, "page_size": 2, **span_for(order)}
    own = historian.get(URL, query).json()["pagination"]["after"]
    forged = base64_of(json.dumps(cursor))
    for after in (forged, f"{forged}.{own.rsplit('.', 1)[-1]}"):
        assert_refused(historian, after, **query)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes().map(str),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(), values, max_size=2),
    max_leaves=6,
)
CURSORS = st.tuples(st.integers(), st.sampled_from([*RUN_ORDERINGS]), JSON, JSON).map(list)


@given(after=st.text() | (JSON | CURSORS).map(lambda cursor: base64_of(json.dumps(cursor))))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_cursor_whatever_breaks_it(historian: Client, after: str) -> None:
    for order in ("-start_timestamp", "-duration", "-id"):
        assert_refused(historian, after, ordering=order, **span_for(order))


@pytest.fixture
def mixed(task: SystemTask) -> None:
    """Create runs with equal, different and missing times and durations."""
    for number in range(9):
        start = factories.START + timedelta(seconds=number // 2)
        factories.task_run(
            task, start_timestamp=start, finish_timestamp=start, duration=number // 3 or None
        )
    for _ in range(4):
        factories.task_run(task, **QUEUED)


@pytest.mark.usefixtures("mixed")
@pytest.mark.parametrize(
    ("ordering", "span"),
    [
        *((name, span_for(name)) for name in RUN_ORDERINGS),
        *((name, {}) for name in ("start_timestamp", "-start_timestamp")),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_after_leads_through_every_run_once_in_order(
    historian: Client, ordering: str, span: dict[str, Any], size: int
) -> None:
    pages: list[Any] = []
    query: dict[str, Any] = {"ordering": ordering, "page_size": size, **span}
    listed = TaskRun.objects.started() if span else TaskRun.objects.all()
    while True:
        answer = historian.get(URL, query)
        assert answer.status_code == 200, answer.content
        pages.append(answer.json())
        position = pages[-1]["pagination"]
        assert position["current"] == len(pages)
        assert position["count"] == listed.count()
        if not position["after"]:
            break
        assert position["next"] == len(pages) + 1
        query["after"] = position["after"]
    assert position["next"] == 0
    key = "-id" if ordering.startswith("-") else "id"
    expected = listed.order_by(*dict.fromkeys([RUN_ORDERINGS[ordering], key]))
    seen = [run["id"] for page in pages for run in page["results"]]
    assert seen == [str(run.id) for run in expected]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"ordering": "finish_timestamp"}, "ordering"),
        ({"ordering": "-finish_timestamp", "min_duration": "10"}, "ordering"),
        ({"ordering": "-duration"}, "ordering"),
        ({"ordering": "duration", "started_from": "2024-06-01T12:00:00Z"}, "ordering"),
        ({"ordering": "duration", "started_until": "2024-06-01T12:00:00Z"}, "ordering"),
        ({"min_duration": "9.99"}, "min_duration"),
        ({"min_duration": "0", "ordering": "duration"}, "min_duration"),
    ],
)
def test_what_no_index_has_is_refused_unless_the_span_is_a_day(
    historian: Client, task: SystemTask, query: dict[str, str], field: str
) -> None:
    factories.task_run(task, celery_id="there", duration=20)
    answer = historian.get(URL, query)
    assert answer.status_code == 400
    [sentence] = answer.json()[field]
    assert "`started_from`" in sentence
    assert found(historian, **{**query, **A_DAY}) == ["there"]
    now = datetime.now(UTC)
    later = {"started_from": (now - timedelta(hours=24)).isoformat()}
    factories.task_run(
        task, celery_id="now", duration=20, start_timestamp=now, finish_timestamp=now
    )
    query.pop("started_until", None)
    assert found(historian, **{**query, **later}) == ["now"]


@pytest.mark.parametrize(
    ("name", "value"),
    [*A_DAY.items(), ("state", "failure"), ("status", "error"), ("min_duration", "0")],
)
def test_the_order_by_id_is_refused_with_what_it_would_look_for_among_all(
    historian: Client, name: str, value: str
) -> None:
    answer = historian.get(URL, {"ordering": "-id", name: value})
    assert answer.status_code == 400
    [sentence] = answer.json()["ordering"]
    assert "`start_timestamp`" in sentence


def test_long_runs_are_found_and_ordered_in_any_time(historian: Client, task: SystemTask) -> None:
    for seconds in (9, 30, 10, 20):
        factories.task_run(task, celery_id=str(seconds), duration=seconds)
    assert found(historian, min_duration=10, ordering="-duration") == ["30", "20", "10"]
    assert sorted(found(historian, min_duration=20)) == ["20", "30"]


def test_the_root_of_runs_is_found_with_its_descendants(
    historian: Client, task: SystemTask
) -> None:
    factories.task_run(task, celery_id="root")
    factories.task_run(task, celery_id="child", root_id="root", parent_id="root")
    factories.task_run(task, celery_id="other")
    assert sorted(found(historian, root_id="root")) == ["child", "root"]
    assert found(historian, root_id="other") == ["other"]


def test_name_and_uid_are_those_of_one_task(
    historian: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, uid in (("a", "x"), ("a", "y"), ("b", "x")):
        factories.task_run(factories.system_task(name, uid), celery_id=name + uid)
    for few in (0, 1, 100):  # of more tasks, the query has no uuids
        monkeypatch.setattr(filters, "FEW_TASKS", few)
        assert sorted(found(historian, name="a")) == ["ax", "ay"]
        assert sorted(found(historian, uid="x")) == ["ax", "bx"]
        assert found(historian, name="a", uid="x") == ["ax"]
        assert found(historian, name="b", uid="y") == found(historian, name="none") == []


@pytest.mark.parametrize(
    ("search", "finds"),
    [
        ("timed out", ["timeout"]),
        ("TIMED bank", ["timeout"]),
        ("100%", ["percent"]),
        ("out and in", []),
        ("", ["none", "percent", "timeout"]),
    ],
)
def test_runs_are_found_by_words_of_their_errors(
    historian: Client, task: SystemTask, search: str, finds: list[str]
) -> None:
    factories.task_run(task, celery_id="timeout", exception="TimeoutError: the bank timed out")
    factories.task_run(task, celery_id="percent", exception="ValueError: 100% of 1004")
    factories.task_run(task, celery_id="none")
    assert sorted(found(historian, search=search)) == finds


def test_a_search_of_runs_without_a_term_of_three_characters_is_400(historian: Client) -> None:
    answer = historian.get(URL, {"search": "no"})
    assert answer.status_code == 400
    assert answer.json()["search"] == ["One of the terms must have at least 3 characters."]


def test_search_of_runs_uses_the_trigram_index(task: SystemTask) -> None:
    for number in range(300):
        factories.task_run(task, exception=f"Error {number}" if number % 30 == 0 else "")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE systemtasks_taskrun")
        cursor.execute("SET LOCAL enable_seqscan = off")
    plan = TaskRun.objects.with_error(["timed out"]).order_by().explain()
    assert "Bitmap Index Scan on systemtasks_taskrun_default_upper_idx" in plan


def test_a_time_may_have_any_offset(historian: Client, task: SystemTask) -> None:
    factories.task_run(task, celery_id="wanted")
    assert found(historian, started_from="2024-05-31T18:26:00-17:34") == ["wanted"]
    assert found(historian, started_from="2024-05-31T18:27:00-17:34") == []


@pytest.mark.parametrize("path", ["", "summary/"])
def test_a_time_without_an_offset_is_in_utc_in_a_project_of_any_time_zone(
    historian: Client, task: SystemTask, path: str
) -> None:
    factories.task_run(task)
    with override_settings(TIME_ZONE="Asia/Tokyo"):
        span = {"started_from": "2024-06-01", "started_until": "2024-06-01T12:00:01"}
        answer = historian.get(f"{URL}{path}", span)
    assert len(answer.json()["results"]) == 1


def test_queued_runs_come_first_and_then_the_last_started(
    historian: Client, task: SystemTask
) -> None:
    late = task.start_timestamp + timedelta(hours=1)
    for name, fields in (("early", {}), ("late", {"start_timestamp": late}), ("queued", QUEUED)):
        factories.task_run(task, celery_id=name, **{"finish_timestamp": late, **fields})
    assert found(historian) == ["queued", "late", "early"]
    assert found(historian, ordering="") == ["queued", "late", "early"]


@pytest.mark.usefixtures("mixed")
@pytest.mark.parametrize(
    "other",
    [
        {"page_size": 3},
        {"page_size": ""},
        {"ordering": "-id"},
        {"ordering": "-duration", "min_duration": "10"},
        {"name": ""},
        {"name": "tests.other"},
        {"state": "success"},
        {"started_from": "2024-06-01T12:00:00Z"},
    ],
)
def test_a_cursor_of_another_query_is_400(historian: Client, other: dict[str, Any]) -> None:
    query: dict[str, Any] = {"page_size": 2, "name": "tests.clean_up"}
    after = historian.get(URL, query).json()["pagination"]["after"]
    other = {name: value for name, value in {**query, **other}.items() if value}
    answer = historian.get(URL, {**other, "after": after})
    assert answer.status_code == 400
    assert answer.json() == {
        "after": ["This cursor belongs to another query."],
        "code": "invalid",
    }


@pytest.mark.usefixtures("mixed")
def test_a_cursor_belongs_to_what_is_asked_and_not_to_how(historian: Client) -> None:
    after = historian.get(URL, {"page_size": 2}).json()["pagination"]["after"]
    query: dict[str, Any] = {"page_size": "02", "ordering": "-start_timestamp", "name": ""}
    position = historian.get(URL, {**query, "after": after, "_": 1}).json()["pagination"]
    assert (position["current"], position["count"]) == (2, 13)


@pytest.mark.usefixtures("mixed")
@pytest.mark.parametrize("ordering", ["-start_timestamp", "-id", "id"])
def test_a_page_after_another_reads_only_its_own_index_entries(
    historian: Client, ordering: str
) -> None:
    url = f"{URL}?ordering={ordering}&page_size=4"
    after = historian.get(url).json()["pagination"]["after"]
    with CaptureQueriesContext(connection) as queries:
        assert historian.get(f"{url}&after={after}").status_code == 200
    rows = [query["sql"] for query in queries if "messages_text" in query["sql"]]
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
        for sql in rows:
            assert "OFFSET" not in sql
            cursor.execute(f"EXPLAIN {sql}")
            plan = "\n".join(line for (line,) in cursor.fetchall())
            assert "Index Cond" in plan, plan
            assert "Sort" not in plan, plan


@pytest.mark.parametrize("run_id", ["x", "-1", "1", f"{NO_RUN}0", f"{{{NO_RUN}}}"])
def test_a_malformed_id_is_400(historian: Client, run_id: str) -> None:
    answer = historian.get(f"{URL}{run_id}/")
    assert answer.status_code == 400
    assert answer.json() == {"id": ["Must be a valid UUID."], "code": "invalid"}


def test_an_unknown_run_is_404(historian: Client) -> None:
    answer = historian.get(f"{URL}{new_uuid()}/")
    assert answer.json() == {"detail": "Not found.", "code": "not_found"}


def test_every_execution_under_a_celery_id_is_found_newest_first(
    historian: Client, task: SystemTask
) -> None:
    first = factories.task_run(task, celery_id="same", executions=2)
    later = factories.START + timedelta(minutes=1)
    again = {"celery_id": "same", "start_timestamp": later, "finish_timestamp": later}
    factories.task_run(task, **again, number=2, redelivered=True, message=first.id)
    factories.task_run(task, celery_id="same", attempt=2, **QUEUED)
    results = historian.get(URL, {"celery_id": "same"}).json()["results"]

    found = [(run["attempt"], run["number"], run["redelivered"]) for run in results]
    assert found == [(2, 1, False), (1, 2, True), (1, 1, False)]


def test_a_long_celery_id_finds_its_own_run_alone(historian: Client, task: SystemTask) -> None:
    ids = ["x" * 300 + end for end in "ab"]
    for celery_id in ids:
        factories.task_run(task, celery_id=id_text(celery_id))
    assert found(historian, celery_id=ids[0]) == [id_text(ids[0])]


def test_runs_come_in_the_order_of_one_clock_whatever_their_hosts_said(
    historian: Client, task: SystemTask
) -> None:
    year, hour = timedelta(days=365), timedelta(hours=1)
    for number, ahead in enumerate([year, timedelta(0), -year]):
        wrong = factories.START + ahead
        factories.task_run(
            task, celery_id=str(number), start_timestamp=wrong, finish_timestamp=wrong,
            sort_timestamp=factories.START + number * hour,
        )  # fmt: skip
    assert found(historian) == found(historian, ordering="-start_timestamp") == ["2", "1", "0"]
    assert found(historian, started_from="2024-06-01T12:30:00Z") == ["2", "1"]


@pytest.mark.parametrize("path", [URL, f"{URL}{NO_RUN}/", f"{URL}summary/"])
def test_who_may_view_tasks_may_not_view_their_runs(reader: Client, path: str) -> None:
    answer = reader.get(path)
    assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")


@pytest.mark.parametrize("query", [{}, {"state": "success"}])
def test_a_page_takes_few_queries_however_long(
    historian: Client, task: SystemTask, query: dict[str, str]
) -> None:
    for _ in range(30):
        factories.task_run(task)
    for size in (1, 30):
        with CaptureQueriesContext(connection) as queries:
            assert len(found(historian, **query, page_size=size)) == size
        # The token with user and permissions, the ids with their count, and the rows. The number
        # of all runs, without a filter, is read apart if there are more than these.
        assert len(queries) == (4 if size == 1 and not query else 3)


@pytest.mark.parametrize(("page", "size"), [(5000, 20), (101, 100), (10_001, 1), (2**62, 1)])
def test_a_page_by_number_past_ten_thousand_rows_is_400_without_a_query(
    historian: Client, page: int, size: int
) -> None:
    with CaptureQueriesContext(connection) as queries:
        answer = historian.get(URL, {"page": page, "page_size": size})
    assert answer.status_code == 400
    assert answer.json() == {
        "page": ["Pages by number end after 10,000 rows; `after` goes on, or narrow the list."],
        "code": "invalid",
    }
    assert [query for query in queries if "systemtasks_taskrun" in query["sql"]] == []
    last = 10_000 // size
    assert historian.get(URL, {"page": last, "page_size": size}).status_code == 404


def test_after_goes_on_past_the_last_page_by_number(
    historian: Client, task: SystemTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pagination, "DEEPEST_ROW", 4)
    for _ in range(7):
        factories.task_run(task)
    query: dict[str, Any] = {"page_size": 2, "page": 2}
    position = historian.get(URL, query).json()["pagination"]
    assert position["next"] == 3
    assert historian.get(URL, {**query, "page": 3}).status_code == 400
    query = {"page_size": 2, "after": position["after"]}
    following = historian.get(URL, query).json()
    assert following["pagination"]["current"] == 3
    assert len(following["results"]) == 2


def test_a_page_by_number_reads_no_messages_of_the_rows_before_it(
    historian: Client, task: SystemTask
) -> None:
    for _ in range(5):
        factories.task_run(task)
    with CaptureQueriesContext(connection) as queries:
        assert len(found(historian, page=2, page_size=2)) == 2
    [skipping] = [query["sql"] for query in queries if "OFFSET" in query["sql"]]
    assert "messages" not in skipping


def test_a_search_finds_the_newest_errors_first_however_old_they_are(
    historian: Client, task: SystemTask
) -> None:
    now = datetime.now(UTC)
    ages = [0.5, 0.7, 3, 5, 20, 40]
    for age in ages:
        moment = now - timedelta(days=age)
        factories.task_run(
            task,
            state="failure",
            status="error",
            exception=f"KeyError: {age}",
            sort_timestamp=moment,
            start_timestamp=moment,
            finish_timestamp=moment,
        )
    expected = [f"KeyError: {age}" for age in ages]
    for size in (1, 3, 4, 6):
        seen: list[str] = []
        after: dict[str, str] = {}
        while True:
            body = historian.get(URL, {"search": "keyerror", "page_size": size, **after}).json()
            assert "results" in body, body
            seen += [row["exception"] for row in body["results"]]
            assert body["pagination"]["count"] >= len(seen)
            if not body["pagination"]["after"]:
                break
            after = {"after": body["pagination"]["after"]}
        assert seen == expected
        second = historian.get(URL, {"search": "keyerror", "page_size": size, "page": 2})
        if size < len(ages):
            found = [row["exception"] for row in second.json()["results"]]
            assert found == expected[size : 2 * size]


def test_a_search_in_another_order_needs_a_short_span(historian: Client) -> None:
    query = {"search": "keyerror", "ordering": "start_timestamp"}
    answer = historian.get(URL, query)
    assert answer.status_code == 400
    assert "newest first" in answer.json()["ordering"][0]
    start = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    assert historian.get(URL, {**query, "started_from": start}).status_code == 200
