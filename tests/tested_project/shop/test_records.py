"""The project's tests of records."""

from collections.abc import Callable, Iterator
from threading import Thread
from time import monotonic, sleep

import pytest
from celery.contrib.testing.worker import start_worker
from django.contrib.auth.models import Group
from django.db import DatabaseError, connection, transaction
from django.test import TestCase

from systemtasks.models import SystemTask, TaskRun
from systemtasks.testing import recording

from .celery import app
from .tasks import charge


@pytest.fixture
def recorded() -> Iterator[None]:
    with recording():
        yield


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = monotonic() + 30
    while not (met := condition()) and monotonic() < deadline:
        sleep(0.01)
    return met


def in_a_thread(function: Callable[[], object]) -> None:
    thread = Thread(target=function)
    thread.start()
    thread.join()


def is_recorded(task_id: str, *states: str) -> bool:
    return [*TaskRun.objects.filter(celery_id=task_id).values_list("state", flat=True)] == [*states]


@pytest.mark.parametrize("_again", range(2))  # the rows of the first one are rolled back
def test_run_is_a_row_of_the_tests_own_transaction(db: None, recorded: None, _again: int) -> None:
    assert not TaskRun.objects.exists()
    assert not SystemTask.objects.exists()
    ran, sent = charge.apply((1,)), charge.delay(1)

    assert is_recorded(str(ran.id), "success")
    assert is_recorded(str(sent.id), "success" if app.conf.task_always_eager else "queued")
    run = TaskRun.objects.get(celery_id=ran.id)
    assert (run.args, [message["event"] for message in run.messages]) == ([1], ["Charging 1"])
    assert run.system_task.name == "shop.tasks.charge"
    assert run.lease is None


class OneTransactionTests(TestCase):
    def test_rolled_back_rows_are_gone(self) -> None:
        with recording():
            try:
                with transaction.atomic():
                    charge.apply((1,))
                    assert TaskRun.objects.exists()
                    raise DatabaseError
            except DatabaseError:
                assert not TaskRun.objects.exists()
            charge.apply((1,))
        assert TaskRun.objects.count() == 1

    def test_nothing_is_recorded_when_it_is_over(self) -> None:
        with recording():
            charge.apply((1,))
        charge.apply((1,))
        assert TaskRun.objects.count() == 1


def test_other_thread_records_nothing_that_would_outlive_the_test(
    db: None, recorded: None, caplog: pytest.LogCaptureFixture
) -> None:
    charge.apply((1,))
    in_a_thread(lambda: charge.apply((1,)))

    assert TaskRun.objects.count() == 1
    assert "would outlive this test" in caplog.text


def test_other_thread_keeps_its_own_connection_and_no_other(
    transactional_db: None, recorded: None
) -> None:
    open_connections = []

    def work() -> None:
        charge.apply((1,))
        open_connections.append(connection.connection is not None)
        assert Group.objects.count() == 0
        charge.apply((1,))
        open_connections.append(connection.connection is not None)
        connection.close()

    in_a_thread(work)

    assert open_connections == [False, True]
    assert TaskRun.objects.count() == 2


def test_runs_of_a_worker_are_recorded(transactional_db: None, recorded: None) -> None:
    with start_worker(app, pool="threads", concurrency=2, perform_ping_check=False):
        sent = str(charge.delay(2).id)
        assert eventually(lambda: is_recorded(sent, "success"))


def test_without_the_database_it_cannot_be_asked_for() -> None:
    with pytest.raises(RuntimeError, match="Database access not allowed"), recording():
        pass
