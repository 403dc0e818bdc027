"""Workers and their children that stop, are killed or are replaced lose no run."""

import re
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.utils import timezone

from config.celery import app
from systemtasks.models import SystemTask, TaskRun
from systemtasks.storage.retention import BATCH_LIMIT
from tests.factories import system_task, task_run
from tests.waiting import eventually
from tests.workers import OLDEST, POOLS, Worker, outcome, send

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture(params=POOLS)
def worker(
    request: pytest.FixtureRequest, transactional_db: None, tmp_path: Path
) -> Iterator[Worker]:
    with Worker(tmp_path / "worker.log", *POOLS[request.param]) as running:
        yield running


def recorded(count: int) -> bool:
    ended = TaskRun.objects.filter(finish_timestamp__isnull=False)
    return eventually(lambda: ended.count() >= count)


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


def test_reject_is_recorded_once_and_as_rejected(prefork: Worker) -> None:
    celery_id = send("tests.reject")
    assert outcome(prefork, celery_id).state == "rejected"
    outcome(prefork, send("tests.succeed"))
    prefork.stop()

    assert outcome(prefork, celery_id).state == "rejected"


def test_task_in_a_cold_shutdown_is_recorded_as_error(prefork: Worker, tmp_path: Path) -> None:
    celery_id = app.send_task("tests.sleep", args=[60]).id
    assert eventually(lambda: "Sleeping" in prefork.log.read_text())
    # Runs that the main process does not know yet are only ended by their lease.
    assert eventually(lambda: celery_id in str(app.control.inspect().active()))
    prefork.process.send_signal(signal.SIGQUIT)
    prefork.process.wait(60)
    with Worker(tmp_path / "next.log", *POOLS["solo"]) as following:
        run = outcome(following, celery_id)

    assert (run.state, run.status) == ("failure", "error")
    assert run.messages[0]["event"] == "Sleeping"
    assert run.messages[-1]["event"].endswith("The worker was shut down while it ran")


@pytest.mark.parametrize("pool", ["threads", "gevent", "solo"])
def test_exit_ends_the_run_in_the_pools_that_say_nothing_more(
    transactional_db: None, tmp_path: Path, pool: str
) -> None:
    with Worker(tmp_path / "worker.log", *POOLS[pool]):
        found = TaskRun.objects.filter(celery_id=send("tests.exit"), state="failure")
        assert eventually(found.exists)

    assert found.get().exception == "SystemExit: 3"


def test_worker_deletes_what_has_expired(transactional_db: None, tmp_path: Path) -> None:
    expired, current = timezone.now() - timedelta(days=1), timezone.now() + timedelta(days=1)
    for number in range(BATCH_LIMIT + 1):
        task_run(system_task("tests.old", f"{number}", expires=expired), expires=expired)
    task_run(system_task("tests.young", expires=current), expires=current)

    with Worker(tmp_path / "worker.log", *POOLS["prefork"]) as worker:
        assert eventually(lambda: "2002 rows had expired" in worker.log.read_text())
        assert outcome(worker, send("tests.succeed")).state == "success"
    assert {*SystemTask.objects.values_list("name", flat=True)} == {"tests.young", "tests.succeed"}
    assert TaskRun.objects.count() == 2


def test_success_stands_where_the_child_is_killed_before_it_has_returned(
    transactional_db: None, tmp_path: Path
) -> None:
    run = _killed_after_its_success(tmp_path, "", "succeeded before the worker was lost")

    assert (run.state, run.status) == ("success", "successful")
    assert run.system_task.status == "successful"
    assert [message["event"] for message in run.messages] == ["Done"]


def test_such_a_success_is_a_failure_to_celery_5_6_and_so_to_its_record(
    transactional_db: None, tmp_path: Path
) -> None:
    run = _killed_after_its_success(tmp_path, OLDEST, "WorkerLostError")

    assert (run.state, run.status) == ("failure", "error")
    assert run.system_task.status == "error"
    events = [message["event"] for message in run.messages]
    assert events[0] == "Done"
    assert "WorkerLostError" in events[-1]


def _killed_after_its_success(tmp_path: Path, packages: str, said: str) -> TaskRun:
    """Wait until the worker reports the killed child, and return the recorded run."""
    log = tmp_path / "worker.log"
    backend = str(settings.CELERY_BROKER_URL)
    with Worker(log, *POOLS["prefork"], packages=packages, CELERY_RESULT_BACKEND=backend):
        celery_id = send("tests.die_afterwards")
        assert eventually(lambda: said in log.read_text())
        found = TaskRun.objects.filter(celery_id=celery_id, finish_timestamp__isnull=False)
        assert eventually(found.exists), log.read_text()
    return found.get()


def test_coroutine_in_one_greenlet_holds_up_no_record(
    transactional_db: None, tmp_path: Path
) -> None:
    with Worker(tmp_path / "worker.log", *POOLS["gevent"]) as worker:
        coroutine = TaskRun.objects.filter(celery_id=send("tests.sleep_in_a_coroutine", 5))
        assert eventually(coroutine.filter(state="running").exists), worker.log.read_text()
        assert outcome(worker, send("tests.succeed")).state == "success"
        assert coroutine.get().state == "running"
        assert eventually(coroutine.filter(state="success").exists), worker.log.read_text()
        assert outcome(worker, send("tests.succeed")).state == "success"
