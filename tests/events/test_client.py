"""The published Python client of authentik 2024.6, unchanged, against the running service."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from django.conf import settings
from kombu import Connection

from systemtasks.models import SystemTask
from tests import factories
from tests.web import Web

# Importing the client takes seconds, and only the slow tests need it.
if TYPE_CHECKING:
    from authentik_client.api.events_api import EventsApi
    from authentik_client.exceptions import ApiException

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]
QUEUE = "tests-client"


@pytest.fixture
def web(transactional_db: None, tmp_path: Path) -> Iterator[Web]:
    with Web(tmp_path / "web.log") as web:
        yield web


def api(web: Web, token: str) -> "EventsApi":
    from authentik_client.api.events_api import EventsApi
    from authentik_client.api_client import ApiClient
    from authentik_client.configuration import Configuration

    configuration = Configuration(host=f"{web.url}/api/v3", access_token=token)
    return EventsApi(ApiClient(configuration))


@pytest.fixture
def events(web: Web) -> "EventsApi":
    return api(web, factories.token(factories.user("all", "view", "run")))


def refusal(error: "ApiException") -> tuple[int, str]:
    return error.status, json.loads(error.body or "")["code"]


def test_the_client_lists_pages_retrieves_and_runs(events: "EventsApi") -> None:
    tasks = [factories.system_task(f"t{number}", "uid") for number in range(3)]
    factories.task_run(tasks[0], queue=QUEUE)
    first = events.events_system_tasks_list(page_size=2, ordering="name")
    assert [task.name for task in first.results] == ["t0", "t1"]
    assert (first.pagination.count, first.pagination.next) == (3, 2)
    second = events.events_system_tasks_list(page_size=2, ordering="name", page=2)
    assert [task.name for task in second.results] == ["t2"]
    assert second.pagination.next == 0
    [found] = events.events_system_tasks_list(
        search="uid T1", name="t1", status="successful"
    ).results
    one = events.events_system_tasks_retrieve(str(tasks[1].uuid))
    assert one == found
    assert (one.uuid, one.full_name, one.expiring) == (str(tasks[1].uuid), "t1:uid", True)
    assert one.start_timestamp == factories.START
    assert one.messages[0].event == "Cleaned up"
    with Connection(settings.CELERY_BROKER_URL) as connection:
        queue = connection.SimpleQueue(QUEUE)
        queue.clear()
        events.events_system_tasks_run_create(str(tasks[0].uuid))
        message = queue.get(timeout=10)
        message.ack()
        queue.close()
    assert message.headers["task"] == "t0"


def test_the_client_reads_every_error(web: Web, events: "EventsApi") -> None:
    from authentik_client.exceptions import ApiException

    task: SystemTask = factories.system_task()
    with pytest.raises(ApiException) as error:
        events.events_system_tasks_retrieve(str(uuid4()))
    assert refusal(error.value) == (404, "not_found")
    with pytest.raises(ApiException) as error:
        events.events_system_tasks_list(ordering="nonsense")
    assert refusal(error.value) == (400, "invalid")
    with pytest.raises(ApiException) as error:
        events.events_system_tasks_run_create(str(task.uuid))
    assert refusal(error.value) == (400, "invalid")
    with pytest.raises(ApiException) as error:
        api(web, "nonsense").events_system_tasks_list()
    assert refusal(error.value) == (403, "authentication_failed")
    reader = api(web, factories.token(factories.user("reader", "view")))
    with pytest.raises(ApiException) as error:
        reader.events_system_tasks_run_create(str(task.uuid))
    assert refusal(error.value) == (403, "permission_denied")
