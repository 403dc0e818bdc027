"""No cache stores the API's responses, and no page of the API runs scripts of other sites."""

import re
from typing import Any

import pytest
from django.test import Client

from tests import factories

LIST = "/api/v3/events/system_tasks/"
pytestmark = pytest.mark.django_db


def assert_is_private(answer: object) -> None:
    headers = answer.headers  # type: ignore[attr-defined]
    assert headers["Cache-Control"] == "private, no-store"
    assert "Authorization" in re.split(r",\s*", headers["Vary"])
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (LIST, 200),
        (f"{LIST}?status=nonsense", 400),
        (f"{LIST}?page=2", 404),
        ("/api/v3/events/task_runs/", 403),
        ("/api/v3/nowhere/", 404),
        ("/api/v3/schema/", 200),
        ("/api/v3/schema/?format=json", 200),
        ("/api/v3/", 200),
        ("/api/v3/?script=", 200),
    ],
)
def test_no_cache_may_keep_an_answer(reader: Client, path: str, status: int) -> None:
    answer = reader.get(path)
    assert answer.status_code == status
    assert_is_private(answer)


def test_no_cache_may_keep_an_answer_that_has_not_changed(reader: Client) -> None:
    tag = reader.get(LIST)["ETag"]
    answer = reader.get(LIST, headers={"if-none-match": tag})
    assert answer.status_code == 304
    assert answer["Cache-Control"] == "private, no-store"
    assert answer["Vary"] == "Authorization"
    assert_is_private(reader.get(LIST, headers={"if-match": '"another"'}))


def test_no_cache_may_keep_what_came_of_running_a_task(runner: Client) -> None:
    task = factories.system_task()
    answer = runner.post(f"{LIST}{task.uuid}/run/")
    assert answer.status_code == 400
    assert_is_private(answer)


def test_page_of_the_api_has_no_script_in_itself(client: Client) -> None:
    page = client.get("/api/v3/")
    assert re.findall(r"<script(?![^>]*\ssrc=)[^>]*>", page.content.decode()) == []
    sources = re.findall(r'<script src="([^"]+)"', page.content.decode())
    assert sources[-1] == "/static/systemtasks_api/browser.js"
    answer: Any = client.get(sources[-1])
    assert b"SwaggerUIBundle(" in b"".join(answer.streaming_content)


def test_page_of_the_api_runs_only_scripts_of_this_service(client: Client) -> None:
    policy = client.get("/api/v3/")["Content-Security-Policy"]
    directives = dict(part.split(None, 1) for part in policy.split("; "))
    assert directives["script-src"] == "'self'"
    assert directives["default-src"] == "'none'"
