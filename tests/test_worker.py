"""Real workers run real tasks, and their records are read over HTTP."""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest
from django.contrib.auth import get_user_model
from knox.models import AuthToken

from config.celery import app
from systemtasks.models import SystemTask, TaskRun, system_task_uuid
from tests.waiting import eventually
from tests.workers import POOLS, Worker

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
    ended = TaskRun.objects.filter(finish_timestamp__isnull=False)
    return eventually(lambda: ended.count() >= count)


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


def test_what_a_tasks_own_threads_log_is_in_its_run(worker: Worker) -> None:
    for number in range(5):
        send("tests.start_threads", number)
    assert recorded(5), worker.log.read_text()

    for run in TaskRun.objects.all():
        assert run.args
        number = run.args[0]
        assert [message["event"] for message in run.messages] == [
            f"Thread of {number}",
            f"Pool of {number}",
        ]


def test_stopped_worker_has_written_every_run_that_it_finished(worker: Worker) -> None:
    for number in range(200):
        send("tests.succeed", number)
    assert eventually(lambda: "Hello 150" in worker.log.read_text()), worker.log.read_text()
    worker.stop()

    finished = worker.log.read_text().count(" succeeded in ")
    assert finished > 150
    assert TaskRun.objects.count() == finished
    assert SystemTask.objects.count() == 1


def test_killed_child_loses_no_run_that_it_had_finished(
    tmp_path: Path, transactional_db: None
) -> None:
    with Worker(tmp_path / "worker.log", "--pool", "prefork", "--concurrency", "1") as worker:
        for number in range(3):  # the pool takes five seconds to replace a child
            send("tests.succeed", number)
            send("tests.die")
        assert recorded(6), worker.log.read_text()

    runs = TaskRun.objects.filter(system_task__name="tests.succeed")
    assert {run.args[0] for run in runs if run.args} == {0, 1, 2}
    assert TaskRun.objects.filter(system_task__name="tests.die", state="failure").count() == 3


def test_killed_worker_loses_no_run_that_it_had_finished(
    tmp_path: Path, transactional_db: None
) -> None:
    options = (*POOLS["prefork"], "--prefetch-multiplier", "1")
    with Worker(tmp_path / "worker.log", *options) as worker:
        for number in range(300):
            send("tests.succeed", number)
        assert eventually(lambda: "Hello 100" in worker.log.read_text()), worker.log.read_text()
        worker.kill()
    finished = set(re.findall(r"tests\.succeed\[(\S+)\] succeeded in", worker.log.read_text()))
    assert len(finished) > 50

    with Worker(tmp_path / "next.log", "--pool", "solo"):
        written = TaskRun.objects.filter(celery_id__in=finished)
        # Celery says so just before task_postrun: each of the two children may have got so far.
        assert eventually(lambda: written.count() >= len(finished) - 2)


def test_children_that_are_replaced_lose_nothing(tmp_path: Path, transactional_db: None) -> None:
    options = (*POOLS["prefork"], "--max-tasks-per-child", "10")
    with Worker(tmp_path / "worker.log", *options) as worker:
        for number in range(100):
            send("tests.succeed", number)
        assert recorded(100), worker.log.read_text()

    assert TaskRun.objects.count() == 100
    written = {run.args[0] for run in TaskRun.objects.all() if run.args}
    assert written == set(range(100))


@pytest.fixture
def prefork(transactional_db: None, tmp_path: Path) -> Iterator[Worker]:
    with Worker(tmp_path / "worker.log", *POOLS["prefork"]) as running:
        yield running


def outcome(worker: Worker, celery_id: str) -> TaskRun:
    """How the run ended, for sure."""
    found = TaskRun.objects.filter(
        celery_id=celery_id, finish_timestamp__isnull=False, lease__isnull=True
    )
    assert eventually(found.exists), (list(TaskRun.objects.values()), worker.log.read_text())
    return found.get()


def last_event(run: TaskRun) -> str:
    event: str = run.messages[-1]["event"]
    return event


@pytest.mark.parametrize("name", ["tests.die", "tests.exit"])
def test_child_that_is_gone_is_recorded_as_error(prefork: Worker, name: str) -> None:
    run = outcome(prefork, send(name))

    assert (run.state, run.status, run.attempt) == ("failure", "error", 1)
    assert "WorkerLostError" in run.exception
    assert (run.queue, run.args, run.kwargs) == ("celery", [], {})
    assert run.worker.startswith("celery@")


def test_hard_time_limit_is_recorded_as_error(prefork: Worker) -> None:
    sent = app.send_task("tests.sleep", args=(60,), time_limit=1)
    run = outcome(prefork, str(sent.id))

    assert (run.state, run.status) == ("failure", "error")
    assert "TimeLimitExceeded" in run.exception
    assert run.duration is not None
    assert 0.9 < run.duration < 30


def test_task_that_is_terminated_while_it_runs_is_recorded_as_error(prefork: Worker) -> None:
    celery_id = send("tests.sleep", 60)
    assert eventually(lambda: "Sleeping" in prefork.log.read_text())
    app.control.revoke(celery_id, terminate=True)
    run = outcome(prefork, celery_id)

    assert (run.state, run.status) == ("revoked", "error")
    assert last_event(run) == "Terminated by SIGTERM while it ran"


def test_task_that_is_revoked_before_its_start_is_recorded_as_warning(prefork: Worker) -> None:
    celery_id = str(uuid4())
    assert eventually(lambda: bool(app.control.ping(timeout=1)))  # it hears what is broadcast
    app.control.revoke(celery_id)
    assert eventually(lambda: celery_id in prefork.log.read_text()), prefork.log.read_text()
    app.send_task("tests.succeed", task_id=celery_id)
    run = outcome(prefork, celery_id)

    assert (run.state, run.status) == ("revoked", "warning")
    assert last_event(run) == "Revoked before it started"


def test_expired_task_is_recorded_as_warning(prefork: Worker) -> None:
    run = outcome(prefork, str(app.send_task("tests.succeed", expires=-1).id))

    assert (run.state, run.status) == ("revoked", "warning")
    assert last_event(run) == "Expired before it started"


def test_unregistered_task_is_recorded_as_error(prefork: Worker) -> None:
    run = outcome(prefork, send("tests.nobody_knows"))

    assert (run.state, run.status) == ("failure", "error")
    assert run.system_task.name == "tests.nobody_knows"
    assert "nobody_knows" in run.exception


def test_reject_is_recorded_once_and_as_rejected(prefork: Worker) -> None:
    celery_id = send("tests.reject")
    assert outcome(prefork, celery_id).state == "rejected"
    outcome(prefork, send("tests.succeed"))
    prefork.stop()

    assert outcome(prefork, celery_id).state == "rejected"


def test_soft_time_limit_is_recorded_as_error(prefork: Worker) -> None:
    celery_id = app.send_task("tests.sleep", args=[60], soft_time_limit=1).id

    run = outcome(prefork, celery_id)

    assert (run.state, run.status) == ("failure", "error")
    assert "SoftTimeLimitExceeded" in run.exception


def test_task_whose_child_was_lost_and_that_runs_again_has_that_end(
    prefork: Worker, tmp_path: Path
) -> None:
    celery_id = app.send_task("tests.lose_child", args=[str(tmp_path / "marker")]).id

    assert outcome(prefork, celery_id).state == "success"


def test_task_in_a_cold_shutdown_is_recorded_as_error(prefork: Worker, tmp_path: Path) -> None:
    celery_id = app.send_task("tests.sleep", args=[60]).id
    assert eventually(lambda: "Sleeping" in prefork.log.read_text())
    # What the main process has not yet heard of has no end but the lease.
    assert eventually(lambda: celery_id in str(app.control.inspect().active()))
    prefork.process.send_signal(signal.SIGQUIT)
    prefork.process.wait(60)
    with Worker(tmp_path / "next.log", *POOLS["solo"]) as following:
        run = outcome(following, celery_id)

    assert (run.state, run.status) == ("failure", "error")
    assert run.messages[0]["event"] == "Sleeping"
    assert last_event(run).endswith("The worker was shut down while it ran")


@pytest.mark.parametrize("pool", ["threads", "gevent", "solo"])
def test_exit_ends_the_run_in_the_pools_that_say_nothing_more(
    transactional_db: None, tmp_path: Path, pool: str
) -> None:
    with Worker(tmp_path / "worker.log", *POOLS[pool]):
        found = TaskRun.objects.filter(celery_id=send("tests.exit"), state="failure")
        assert eventually(found.exists)

    assert found.get().exception == "SystemExit: 3"
