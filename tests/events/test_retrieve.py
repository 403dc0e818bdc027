"""GET /api/v3/events/system_tasks/{uuid}/: its answer, and each of its refusals."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from systemtasks.models import SystemTask
from tests import factories

URL = "/api/v3/events/system_tasks"
pytestmark = pytest.mark.django_db


def test_a_task_is_answered_in_the_contracts_fields_and_order(reader: Client) -> None:
    task = factories.system_task("app.tasks.sync", "ldap", expires=None)
    answer = reader.get(f"{URL}/{task.uuid}/")
    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/json"
    expected = {
        "uuid": str(task.uuid),
        "name": "app.tasks.sync",
        "full_name": "app.tasks.sync:ldap",
        "uid": "ldap",
        "description": "Clean up what nobody needs.",
        "start_timestamp": "2024-06-01T12:00:00Z",
        "finish_timestamp": "2024-06-01T12:00:01.250000Z",
        "duration": 1.25,
        "status": "successful",
        "messages": [factories.log_event()],
        "expires": None,
        "expiring": False,
    }
    assert answer.json() == expected
    assert list(answer.json()) == list(expected)


def test_a_task_that_expires_says_so(reader: Client) -> None:
    task = factories.system_task(expires=datetime(2024, 7, 1, tzinfo=UTC))
    body = reader.get(f"{URL}/{task.uuid}/").json()
    assert (body["expires"], body["expiring"]) == ("2024-07-01T00:00:00Z", True)


def test_a_task_without_uid_and_docstring_has_empty_texts_and_never_null(reader: Client) -> None:
    task = factories.system_task(description="")
    body = reader.get(f"{URL}/{task.uuid}/").json()
    assert (body["uid"], body["description"], body["full_name"]) == ("", "", task.name)


@pytest.mark.parametrize(
    "value", [10**30, -(2**63) - 1, 0.1, "ü\u2028\U0001f600", [None, {"a": [True]}]]
)
def test_whatever_jsonb_holds_is_answered(reader: Client, value: object) -> None:
    messages = [factories.log_event(attributes={"value": value})]
    task = factories.system_task(messages=messages)
    assert reader.get(f"{URL}/{task.uuid}/").json()["messages"] == messages


def test_format_json_is_the_same_answer(reader: Client) -> None:
    task = factories.system_task()
    plain, asked = reader.get(f"{URL}/{task.uuid}/"), reader.get(f"{URL}/{task.uuid}/?format=json")
    assert asked.status_code == 200
    assert asked.content == plain.content


def test_the_spelling_with_two_slashes_is_the_same_answer(reader: Client) -> None:
    task = factories.system_task()
    single, double = (
        reader.get(f"{prefix}/events/system_tasks/{task.uuid}/")
        for prefix in ("/api/v3", "/api/v3/")
    )
    assert double.status_code == 200
    assert double.content == single.content


def test_an_uppercase_uuid_is_the_same_task(reader: Client) -> None:
    task = factories.system_task()
    assert reader.get(f"{URL}/{str(task.uuid).upper()}/").json()["uuid"] == str(task.uuid)


def test_filters_of_the_list_are_none_of_a_tasks_business(reader: Client) -> None:
    task = factories.system_task()
    assert reader.get(f"{URL}/{task.uuid}/?status=nonsense&name=other").status_code == 200


@pytest.mark.parametrize(
    "uuid",
    [
        "1",
        "not-a-uuid",
        "a.b",
        "%00",
        "%0A",
        "%FF",
        "00000000000000000000000000000000",
        "{00000000-0000-0000-0000-000000000000}",
        "00000000-0000-0000-0000-00000000000g",
        "00000000-0000-0000-0000-000000000000%0A",
        "\u0660" * 8 + "-0000-0000-0000-000000000000",
    ],
)
def test_a_malformed_uuid_is_400(reader: Client, uuid: str) -> None:
    answer = reader.get(f"{URL}/{uuid}/")
    assert answer.status_code == 400
    assert answer.json() == {"uuid": ["Must be a valid UUID."], "code": "invalid"}


def test_an_unknown_uuid_is_404(reader: Client) -> None:
    answer = reader.get(f"{URL}/{uuid4()}/")
    assert answer.status_code == 404
    assert answer.json() == {"detail": "Not found.", "code": "not_found"}


@pytest.mark.parametrize("uuid", ["nonsense", str(UUID(int=0))])
def test_who_may_not_view_learns_nothing_of_the_uuid(runner: Client, uuid: str) -> None:
    nobody = Client().get(f"{URL}/{uuid}/")
    assert (nobody.status_code, nobody.json()["code"]) == (403, "not_authenticated")
    forbidden = runner.get(f"{URL}/{uuid}/")
    assert (forbidden.status_code, forbidden.json()["code"]) == (403, "permission_denied")


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "trace"])
def test_nothing_but_reading_is_405(reader: Client, method: str) -> None:
    task = factories.system_task()
    answer = getattr(reader, method)(f"{URL}/{task.uuid}/")
    assert answer.status_code == 405
    assert answer.json() == {
        "detail": f'Method "{method.upper()}" not allowed.',
        "code": "method_not_allowed",
    }
    assert answer["Allow"] == "GET, HEAD, OPTIONS"
    assert SystemTask.objects.count() == 1


def test_retrieving_takes_two_queries_each_time_anew(reader: Client) -> None:
    task = factories.system_task()
    for _ in range(2):
        with CaptureQueriesContext(connection) as queries:
            assert reader.get(f"{URL}/{task.uuid}/").status_code == 200
        token, row = queries
        assert '"knox_authtoken"' in token["sql"]
        assert '"systemtasks_systemtask"' in row["sql"]


def test_who_may_not_view_asks_for_no_row(runner: Client) -> None:
    task = factories.system_task()
    with CaptureQueriesContext(connection) as queries:
        assert runner.get(f"{URL}/{task.uuid}/").status_code == 403
    assert [query for query in queries if '"systemtasks_systemtask"' in query["sql"]] == []


def test_a_permission_that_is_taken_away_is_gone_at_once(reader: Client) -> None:
    task = factories.system_task()
    assert reader.get(f"{URL}/{task.uuid}/").status_code == 200
    User.objects.get().user_permissions.clear()
    assert reader.get(f"{URL}/{task.uuid}/").status_code == 403
