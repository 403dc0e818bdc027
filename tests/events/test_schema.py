"""The OpenAPI document that is served, against the wire format that clients were generated from."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from django.test import Client
from django.urls import reverse
from drf_spectacular.validation import validate_schema

from events.document import FILE
from events.schema import document

WIRE_FORMAT: dict[str, Any] = yaml.safe_load(
    Path(__file__).with_name("system-task.openapi.yaml").read_text()
)
OPERATIONS = {
    operation["operationId"]: (path, method, operation)
    for path, methods in WIRE_FORMAT["paths"].items()
    for method, operation in methods.items()
}
COMPONENTS: dict[str, Any] = WIRE_FORMAT["components"]["schemas"]
ERRORS = {"400", "403", "404", "406", "429", "500"}
ANSWERS = {
    "events_system_tasks_list": {"200", "304", "412", *ERRORS},
    "events_system_tasks_retrieve": {"200", "304", "412", *ERRORS},
    "events_system_tasks_run_create": {"204", *ERRORS},
}


@pytest.fixture(scope="module")
def served() -> dict[str, Any]:
    document: dict[str, Any] = Client().get("/api/v3/schema/", {"format": "json"}).json()
    return document


def test_what_comes_back_of_the_document_itself_is_described(served: dict[str, Any]) -> None:
    described = served["paths"]["/schema/"]["get"]["responses"]
    asked: list[dict[str, str]] = [{}, {"accept": "image/png"}, {"if-match": '"other"'}]
    answers = [Client().get("/api/v3/schema/", headers=headers) for headers in asked]
    tag = {"if-none-match": answers[0]["ETag"]}
    answers.append(Client().get("/api/v3/schema/", headers=tag))
    answers.append(Client().get("/api/v3/schema/", {"format": "xml"}))
    assert described.keys() == {str(answer.status_code) for answer in answers} | {"500"}
    for answer in answers[1:]:
        content = described[str(answer.status_code)].get("content", {})
        found = {answer["Content-Type"]: answer.json()} if answer.content else {}
        assert {media: each["example"] for media, each in content.items()} == found


def described_as(ours: Any, theirs: Any) -> bool:
    """Return True if ours equals theirs, apart from descriptions."""
    if not isinstance(theirs, dict):
        return bool(ours == theirs)
    return ours.keys() - theirs.keys() <= {"description"} and all(
        key in ours and described_as(ours[key], value) for key, value in theirs.items()
    )


@pytest.mark.parametrize("name", COMPONENTS)
def test_each_component_is_the_wire_formats(served: dict[str, Any], name: str) -> None:
    ours, theirs = served["components"]["schemas"][name], COMPONENTS[name]
    assert described_as(ours, theirs), ours
    assert list(ours.get("properties", {})) == list(theirs.get("properties", {}))


RUNS = {f"/events/task_runs/{end}" for end in ("", "{id}/", "{id}/run/", "summary/")}
OURS = {"TaskRun", "TaskRunStateEnum", "PaginatedTaskRunList", "RunPagination"}
OURS |= {"TaskSummary", "PaginatedTaskSummaryList"}


def test_there_are_no_other_components(served: dict[str, Any]) -> None:
    assert served["components"]["schemas"].keys() == COMPONENTS.keys() | OURS
    schemes = WIRE_FORMAT["components"]["securitySchemes"]
    assert served["components"]["securitySchemes"] == schemes


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_the_wire_formats(served: dict[str, Any], name: str) -> None:
    path, method, theirs = OPERATIONS[name]
    ours = served["paths"][path][method]
    assert ours["operationId"] == name
    assert "requestBody" not in ours
    for key in ("tags", "security"):
        assert ours[key] == theirs[key]
    assert ours["description"] == theirs.get("description", ours["description"])
    given = [{"required": False, **parameter} for parameter in ours["parameters"]]
    expected = [{"required": False, **parameter} for parameter in theirs["parameters"]]
    assert [parameter["name"] for parameter in given] == [p["name"] for p in expected]
    assert all(map(described_as, given, expected)), given


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_status_that_can_come_back_is_documented_with_its_body(
    served: dict[str, Any], name: str
) -> None:
    path, method, _ = OPERATIONS[name]
    answers = served["paths"][path][method]["responses"]
    assert answers.keys() == ANSWERS[name]
    for status, answer in answers.items():
        if status in ("204", "304"):
            assert "content" not in answer
            continue
        body = {"400": "ValidationError"}.get(status, "GenericError")
        if status == "200":
            body = "PaginatedSystemTaskList" if name.endswith("_list") else "SystemTask"
        schema = {"$ref": f"#/components/schemas/{body}"}
        [content] = answer["content"].values()
        assert content["schema"] == schema
        assert content["example"]


def test_paths_are_below_the_server_and_each_is_there_once(served: dict[str, Any]) -> None:
    assert served["servers"] == [{"url": "/api/v3"}]
    assert served["paths"].keys() == {*WIRE_FORMAT["paths"], *RUNS, "/schema/"}
    assert served["info"]["title"] == "System Tasks"


def test_the_document_is_public_and_yaml_unless_json_is_asked_for(served: dict[str, Any]) -> None:
    for headers in ({}, {"authorization": "Bearer nonsense"}, {"accept": "*/*"}):
        answer = Client().get("/api/v3/schema/", headers=headers)
        assert answer.status_code == 200
        assert answer["Content-Type"].startswith("application/vnd.oai.openapi;")
        assert yaml.safe_load(answer.content) == served
    answer = Client().get("/api/v3/schema/", headers={"accept": "application/json"})
    assert answer["Content-Type"] == "application/json"
    assert answer.json() == served


def test_the_document_is_valid_and_what_make_openapi_makes_without_a_warning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = document()

    assert capsys.readouterr() == ("", "")  # drf-spectacular prints its warnings
    validate_schema(yaml.safe_load(made))
    assert made == FILE.read_text()


@pytest.mark.parametrize("path", ["/api/v3/", "/api/v3//"])
def test_the_page_needs_nothing_from_elsewhere(path: str) -> None:
    answer = Client().get(path)
    assert answer.status_code == 200
    page = answer.content.decode()
    assert "<title>System Tasks</title>" in page
    assert "://" not in page.replace("http://www.w3.org", "")
    assert "/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js" in page
    assert 'data-document="/api/v3/schema/"' in page


@pytest.mark.parametrize("file", ["swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"])
def test_the_pages_files_are_served(file: str) -> None:
    path = f"/static/drf_spectacular_sidecar/swagger-ui-dist/{file}"
    answer: Any = Client().get(path)
    assert answer.status_code == 200
    assert len(b"".join(answer.streaming_content)) == int(answer["Content-Length"])


def test_addresses_are_made_with_one_slash() -> None:
    assert reverse("systemtasks_api:schema") == "/api/v3/schema/"
    assert reverse("systemtasks_api:system-task-list") == "/api/v3/events/system_tasks/"


@pytest.mark.parametrize("path", ["/api/v3/", "/api/v3/schema/", "/api/v3/schema/?format=json"])
def test_what_everyone_may_read_is_sent_again_only_when_it_has_changed(path: str) -> None:
    first = Client().get(path)
    assert first.status_code == 200
    again = Client(headers={"if-none-match": first["ETag"]}).get(path)
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["/api/v3/", "/api/v3//", "/api/v3/schema/"])
@pytest.mark.parametrize("method", ["OPTIONS", "POST", "DELETE"])
def test_pages_for_everyone_can_only_be_read(path: str, method: str) -> None:
    answer = Client(raise_request_exception=False).generic(method, path)
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


def test_the_document_is_the_same_whatever_is_asked_for() -> None:
    answers = [
        Client().get("/api/v3/schema/", query) for query in ({}, {"version": "2", "lang": "de"})
    ]
    assert answers[0].content == answers[1].content
