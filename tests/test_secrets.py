"""No secret of the tasks is in the rows that a worker and its senders write."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import chain
from django.db import connection

from config.celery import app
from systemtasks.models import SystemTask, TaskRun
from systemtasks.rerun import NotRerunnableError, rerun
from tests.tasks import pay, succeed
from tests.test_in_progress import send_from_another_process
from tests.waiting import eventually
from tests.workers import Worker

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

SECRET = "4111-1111-1111-1111"
MASK = "********"


@pytest.fixture
def worker(transactional_db: None, tmp_path: Path) -> Iterator[Worker]:
    with Worker(tmp_path / "worker.log", "--concurrency", "2") as worker:
        yield worker


def rows() -> str:
    """Return the whole content of the tables as text."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT row_to_json(run)::text FROM systemtasks_taskrun AS run")
        found = cursor.fetchall()
        cursor.execute("SELECT row_to_json(task)::text FROM systemtasks_systemtask AS task")
        return json.dumps(found + cursor.fetchall())


def test_no_secret_of_what_a_worker_runs_is_on_record(worker: Worker) -> None:
    pay.delay("bob", SECRET, page=7)
    pay.chunks([("bob", SECRET)], 1).apply_async()
    pay.starmap([("bob", SECRET)]).delay()
    chain(succeed.s(1), pay.si("bob", SECRET)).delay()
    succeed.apply_async((1,), link=pay.s(SECRET))
    app.send_task("tests.succeed", (1,), {"label": pay.s("bob", SECRET)})
    failed = TaskRun.objects.filter(state="failure", lease__isnull=True)

    assert eventually(lambda: failed.count() == 5), worker.log.read_text()
    assert eventually(lambda: TaskRun.objects.filter(state="success").count() == 3)
    assert SECRET not in rows()
    run = failed.filter(system_task__name="tests.pay").earliest("start_timestamp")
    assert (run.args, run.kwargs) == (["bob", MASK], {"page": 7})
    assert run.exception == f"ValueError: postgres://{MASK}@db is away"
    assert run.messages[0]["event"] == f"Charging {MASK} for bob"
    assert run.messages[0]["attributes"] == {"seen": [MASK]}
    of_celery = TaskRun.objects.filter(system_task__name="celery.starmap")
    assert [(run.args, run.kwargs) for run in of_celery] == [(None, None)] * 2
    with pytest.raises(NotRerunnableError, match="masked"):
        rerun(SystemTask.objects.get(name="tests.pay"))


def test_sender_that_does_not_know_the_task_has_no_secret_on_record(
    transactional_db: None,
) -> None:
    for options in ({"args": ["bob", SECRET]}, {"kwargs": {"user": "bob", "number": SECRET}}):
        celery_id = send_from_another_process("tests.pay", queue="nobody-listens", **options)
        assert TaskRun.objects.get(celery_id=celery_id).state == "queued"

    assert SECRET not in rows()


def test_task_that_is_not_recorded_has_no_row_by_a_sender_that_does_not_know_it(
    worker: Worker,
) -> None:
    before = time.monotonic()
    send_from_another_process("tests.unrecorded", args=[SECRET])
    assert SECRET not in rows()

    assert eventually(lambda: f"Hello {SECRET}" in worker.log.read_text())
    assert eventually(lambda: not TaskRun.objects.exists(), seconds=20)
    assert eventually(lambda: not SystemTask.objects.filter(name="tests.unrecorded").exists())
    assert time.monotonic() - before < 30
