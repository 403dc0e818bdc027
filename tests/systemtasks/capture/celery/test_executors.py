"""Runs of executors that send Celery's signals in their own way, and of Celery's own polling."""

import json
import sys
from typing import Any
from uuid import uuid4

import pytest
from celery import signals as celery_signals
from celery.app.task import Context
from celery.exceptions import Retry

from config.celery import app
from systemtasks.capture.celery import received
from systemtasks.capture.celery.options import AnyTask, task_info
from systemtasks.runs.journal_line import SENT_HEADER
from systemtasks.runs.records import RunRecord
from systemtasks.states import State, Status
from tests import batches, tasks
from tests.batches import SimpleRequest
from tests.systemtasks.capture.celery.test_signals import events
from tests.systemtasks.conftest import MakeTask


def message(name: str, *args: Any) -> SimpleRequest:
    celery_id = str(uuid4())
    headers = {"id": celery_id, "retries": 0, "origin": "gen1@host", SENT_HEADER: 1e9}
    delivery_info = {"routing_key": "mail"}
    return SimpleRequest(celery_id, name, args, {}, delivery_info, "worker@host", headers)


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "celery_batches", batches)


def run_batch(task: AnyTask, number: int) -> list[SimpleRequest]:
    messages = [message(task.name, index) for index in range(number)]
    batches.apply_batches_task(task, (messages,))
    return messages


def test_each_message_of_a_batch_ends_as_the_batch_does(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    def task(requests: list[SimpleRequest]) -> None:
        tasks.logger.info("%d requests", len(requests))

    messages = run_batch(make_task(task), 3)
    ends = {record.celery_id: record for record in records}
    batch = records[0]

    assert [(end.state, end.status) for end in records] == [
        (State.SUCCESS, Status.SUCCESSFUL)
    ] * len(records)
    assert ends.keys() == {batch.celery_id, *(one.id for one in messages)}
    assert events(batch) == ["3 requests"]
    assert (batch.queue, batch.worker) == ("mail", "worker@host")
    for index, one in enumerate(messages):
        end = ends[one.id]
        assert (end.queue, end.worker, end.sender) == ("mail", "worker@host", "gen1@host")
        assert end.args == f"[{index}]"
        assert end.sent_timestamp is not None
        assert end.start_timestamp == batch.start_timestamp
        assert events(end) == [f"Ran in the batch {batch.celery_id}"]


def test_each_message_of_a_batch_that_fails_has_its_exception(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    def task(requests: list[SimpleRequest]) -> None:
        raise ValueError("wrong")

    run_batch(make_task(task), 2)

    assert [(end.state, end.status, end.exception) for end in records] == [
        (State.FAILURE, Status.ERROR, "ValueError: wrong")
    ] * 3
    assert "traceback" in json.loads(records[0].messages)[-1]["attributes"]["exception"]


def test_run_whose_signals_have_another_id_than_its_request_ends(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    task = make_task(lambda: None)
    request = Context(id="of the message", called_directly=False)
    task.request_stack.push(request)
    try:
        celery_signals.task_prerun.send(
            sender=task, task_id="of the executor", task=task, args=(), kwargs={}
        )
        celery_signals.task_retry.send(sender=task, request=request, reason=Retry("again"))
        celery_signals.task_postrun.send(
            sender=task, task_id="of the executor", task=task, args=(), kwargs={}, state="RETRY"
        )
    finally:
        task.request_stack.pop()

    assert [(record.celery_id, record.state) for record in records] == [
        ("of the message", State.RETRY)
    ]
    assert events(records[0]) == ["Retry"]


def test_polling_of_chords_is_recorded_only_when_it_ends(records: list[RunRecord]) -> None:
    task = app.tasks["celery.chord_unlock"]
    headers = {"id": "unlock", "retries": 7}
    assert task_info(task).polls
    assert (
        received.queued(task.name, headers, ((), {}, {}), {"exchange": "", "routing_key": "celery"})
        is None
    )

    for state in ("RETRY", "RETRY", "SUCCESS"):
        task.request_stack.push(Context(id="unlock", retries=7, called_directly=False))
        try:
            celery_signals.task_prerun.send(
                sender=task, task_id="unlock", task=task, args=(), kwargs={}
            )
            celery_signals.task_postrun.send(
                sender=task, task_id="unlock", task=task, args=(), kwargs={}, state=state
            )
        finally:
            task.request_stack.pop()

    assert [(record.state, record.status) for record in records] == [
        (State.SUCCESS, Status.SUCCESSFUL)
    ]


@pytest.mark.parametrize("name", ["tests.retry", "celery.chord"])
def test_other_tasks_are_recorded_at_each_retry(name: str) -> None:
    assert not task_info(app.tasks[name]).polls
