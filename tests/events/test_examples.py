"""The examples in the OpenAPI document are answers that the service gives."""

from datetime import datetime
from typing import Any

import pytest
from django.test import Client

from events.examples import EVERYWHERE, EXAMPLES, MESSAGE, RUN, TASK, TO_A_GET, TO_A_TOKEN
from events.views import SystemTaskViewSet
from systemtasks.models import SystemTask, TaskRun
from tests import factories
from tests.events.conftest import client_of

BASE = "/api/v3/events"
pytestmark = pytest.mark.django_db
SPAN = "started_from=2024-06-01T00:00:00Z&started_until=2024-07-01T00:00:00Z"
URLS = {
    "events_system_tasks_list": "/system_tasks/",
    "events_system_tasks_retrieve": f"/system_tasks/{TASK['uuid']}/",
    "events_task_runs_list": "/task_runs/",
    "events_task_runs_retrieve": f"/task_runs/{RUN['id']}/",
    "events_task_runs_summary_list": f"/task_runs/summary/?{SPAN}",
}
REFUSED = {
    ("events_system_tasks_list", "400"): "/system_tasks/?status=done",
    ("events_system_tasks_list", "404"): "/system_tasks/?page=2",
    ("events_system_tasks_retrieve", "400"): "/system_tasks/x/",
    ("events_system_tasks_retrieve", "404"): f"/system_tasks/{'0' * 8}{'-0000' * 3}-{'0' * 12}/",
    ("events_task_runs_list", "400"): "/task_runs/?status=done",
    ("events_task_runs_list", "404"): "/task_runs/?page=2",
    ("events_task_runs_retrieve", "400"): "/task_runs/x/",
    ("events_task_runs_retrieve", "404"): f"/task_runs/{'0' * 8}{'-0000' * 3}-{'0' * 12}/",
    ("events_task_runs_summary_list", "400"): "/task_runs/summary/?started_from=yesterday",
    ("events_task_runs_summary_list", "404"): "/task_runs/summary/?page=2",
}


@pytest.fixture
def client(db: None) -> Client:
    return client_of("all", "view", "run", "view_taskrun")


@pytest.fixture
def rows(db: None) -> TaskRun:
    def stored(model: Any, example: dict[str, Any]) -> dict[str, Any]:
        names = {field.name for field in model._meta.concrete_fields} - {"system_task"}
        return {
            name: datetime.fromisoformat(value)
            if value and (name.endswith("_timestamp") or name == "expires")
            else value
            for name, value in example.items()
            if name in names
        }

    task = SystemTask.objects.create(**stored(SystemTask, TASK))
    run = stored(TaskRun, RUN)
    return TaskRun.objects.create(system_task=task, sort_timestamp=run["start_timestamp"], **run)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("operation", URLS)
def test_each_answer_is_the_example(client: Client, operation: str) -> None:
    assert client.get(f"{BASE}{URLS[operation]}").json() == EXAMPLES[operation]["200"]


@pytest.mark.parametrize(("operation", "status"), REFUSED)
def test_each_refusal_is_the_example(client: Client, operation: str, status: str) -> None:
    answer = client.get(f"{BASE}{REFUSED[operation, status]}")
    assert (str(answer.status_code), answer.json()) == (status, EXAMPLES[operation][status])


def test_each_error_of_any_operation_is_the_example(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError

    path = f"{BASE}/system_tasks/"
    token = factories.token(factories.user("bound", "view"))
    factories.grant(token, rate=3)
    bound = Client(headers={"authorization": f"Bearer {token}"})
    answers = [
        Client().get(path),
        client.get(path, headers={"accept": "image/png"}),
        [bound.get(path) for _ in range(4)][-1],
    ]
    monkeypatch.setattr(SystemTaskViewSet, "get_queryset", fail)
    answers.append(client.get(path))
    found = {str(answer.status_code): answer.json() for answer in answers}
    seconds = int(answers[2]["Retry-After"])
    text = found["429"]["detail"].replace(f"in {seconds} second", "in 20 second")
    found["429"]["detail"] = text
    assert found == EVERYWHERE | TO_A_TOKEN


@pytest.mark.parametrize(
    "header", [{"if-match": '"other"'}, {"if-unmodified-since": "Wed, 21 Oct 2015 07:28:00 GMT"}]
)
def test_an_answer_that_is_not_the_one_asked_for_is_the_example(
    client: Client, header: dict[str, str]
) -> None:
    answer = client.get(f"{BASE}/system_tasks/", headers=header)
    assert (answer.status_code, answer.json()) == (412, TO_A_GET["412"])
    assert client.head(f"{BASE}/system_tasks/", headers=header).status_code == 412


def test_running_what_has_no_run_is_the_example(client: Client) -> None:
    task = factories.system_task(messages=[MESSAGE])
    answer = client.post(f"{BASE}/system_tasks/{task.uuid}/run/")
    assert (answer.status_code, answer.json()) == (
        400,
        EXAMPLES["events_system_tasks_run_create"]["400"],
    )
