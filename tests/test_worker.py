"""Real workers run real tasks, and their records are read over HTTP."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from django.contrib.auth import get_user_model
from knox.models import AuthToken

from config.celery import app
from systemtasks.models import SystemTask, TaskRun, system_task_uuid
from tests.waiting import eventually
from tests.workers import Worker

POOLS = {
    "prefork": ("--pool", "prefork", "--concurrency", "2"),
    "threads": ("--pool", "threads", "--concurrency", "4"),
    "solo": ("--pool", "solo"),
}

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture(params=POOLS)
def worker(
    request: pytest.FixtureRequest, transactional_db: None, tmp_path: Path
) -> Iterator[Worker]:
    with Worker(tmp_path / "worker.log", *POOLS[request.param]) as running:
        yield running


@pytest.fixture
def token() -> str:
    admin = get_user_model().objects.create_superuser("admin")
    _, token = AuthToken.objects.create(user=admin, expiry=None)
    return str(token)


def send(name: str, *args: Any, **kwargs: Any) -> str:
    return str(app.send_task(name, args=args, kwargs=kwargs).id)


def recorded(count: int) -> bool:
    return eventually(lambda: TaskRun.objects.count() >= count)


def get(url: str, token: str) -> Any:
    request = Request(url, headers={"Authorization": f"Bearer {token}"})
    with urlopen(request, timeout=10) as response:
        return json.load(response)


def test_record_of_a_task_that_ran_is_read_over_http(
    worker: Worker, live_server: Any, token: str
) -> None:
    send("tests.succeed", 3, label="x")
    send("tests.fail")
    send("tests.retry", 1)
    send("tests.warn")
    assert recorded(5), worker.log.read_text()

    api = f"{live_server.url}/api/v3/events/system_tasks"
    success = get(f"{api}/{system_task_uuid('tests.succeed')}/", token)
    assert success["name"] == success["full_name"] == "tests.succeed"
    assert success["description"] == "Say hello."
    assert success["status"] == "successful"
    assert [message["event"] for message in success["messages"]] == [
        "Hello 3",
        "Hello from another logger",
        "Hello from print",
    ]
    assert success["messages"][0]["attributes"] == {"label": "x"}
    assert success["expiring"] is True

    failure = get(f"{api}/{system_task_uuid('tests.fail')}/", token)
    assert failure["status"] == "error"
    last = failure["messages"][-1]
    assert last["event"] == "tests.tasks.ShopError: order 7: no such order"
    assert "KeyError: 'order'" in last["attributes"]["exception"]["traceback"]

    assert get(f"{api}/{system_task_uuid('tests.warn')}/", token)["status"] == "warning"
    assert get(f"{api}/{system_task_uuid('tests.retry')}/", token)["status"] == "successful"


def test_attempts_are_rows_with_queue_worker_and_wait(worker: Worker) -> None:
    celery_id = send("tests.retry", 2)
    assert recorded(3), worker.log.read_text()

    runs = list(TaskRun.objects.filter(celery_id=celery_id).order_by("attempt"))
    assert [(run.attempt, run.state) for run in runs] == [
        (1, "retry"),
        (2, "retry"),
        (3, "success"),
    ]
    for run in runs:
        assert run.queue == "celery"
        assert run.worker.startswith("celery@")
        assert run.wait is not None
        assert 0 <= run.wait < 10
        assert run.sent_timestamp
        assert run.start_timestamp
        assert run.sent_timestamp < run.start_timestamp
    assert [message["event"] for message in runs[0].messages] == [
        "Attempt 1",
        "Retry in 0.05 s: ConnectionError: away",
    ]


def test_simultaneous_runs_keep_their_messages_apart(worker: Worker) -> None:
    for number in range(8):
        send("tests.chat", number, 20)
    assert recorded(8), worker.log.read_text()

    for run in TaskRun.objects.all():
        assert run.args
        assert {message["event"] for message in run.messages} == {f"I am {run.args[0]}"}
        assert len(run.messages) == 20


def test_stopped_worker_has_written_every_run_that_it_finished(worker: Worker) -> None:
    for number in range(200):
        send("tests.succeed", number)
    assert eventually(lambda: "Hello 150" in worker.log.read_text()), worker.log.read_text()
    worker.stop()

    finished = worker.log.read_text().count(" succeeded in ")
    assert finished > 150
    assert TaskRun.objects.count() == finished
    assert SystemTask.objects.count() == 1


def test_children_that_are_replaced_lose_nothing(tmp_path: Path, transactional_db: None) -> None:
    options = (*POOLS["prefork"], "--max-tasks-per-child", "10")
    with Worker(tmp_path / "worker.log", *options) as worker:
        for number in range(100):
            send("tests.succeed", number)
        assert recorded(100), worker.log.read_text()

    assert TaskRun.objects.count() == 100
    written = {run.args[0] for run in TaskRun.objects.all() if run.args}
    assert written == set(range(100))
