"""The state that a task itself stores counts if it ends by Ignore or Reject."""

import json
from typing import Any

import pytest
from celery import states
from celery.backends.cache import CacheBackend
from celery.exceptions import Ignore, Reject

from systemtasks.runs.records import RunRecord
from systemtasks.states import State, Status
from tests.systemtasks.capture.celery.test_signals import events
from tests.systemtasks.conftest import MakeTask


def fail_by_hand(self: Any, error: type[Exception]) -> None:
    meta = {"exc_type": "ShopError", "exc_message": ["order 7"], "password": "hunter2"}
    self.update_state(state=states.FAILURE, meta=meta)
    raise error


@pytest.mark.parametrize("error", [Ignore, Reject])
def test_task_that_stores_a_failure_has_failed(
    records: list[RunRecord], make_task: MakeTask, error: type[Exception]
) -> None:
    make_task(fail_by_hand, bind=True).apply(args=(error,))
    (record,) = records

    assert (record.state, record.status) == (State.FAILURE, Status.ERROR)
    assert record.exception == "ShopError: ['order 7']"
    assert events(record) == ["ShopError: ['order 7']"]
    assert "hunter2" not in record.messages


@pytest.mark.parametrize(
    ("stored", "meta", "state", "exception"),
    [
        ("FAILURE", ValueError("wrong"), State.FAILURE, "ValueError: wrong"),
        ("FAILURE", "no dictionary", State.FAILURE, "The task has stored FAILURE as its state"),
        ("FAILURE", None, State.FAILURE, "The task has stored FAILURE as its state"),
        ("SUCCESS", 7, State.SUCCESS, ""),
        ("REVOKED", None, State.REVOKED, ""),
        ("PROGRESS", {"done": 7}, State.IGNORED, ""),
        (None, None, State.IGNORED, ""),
        (7, None, State.IGNORED, ""),
    ],
)
def test_final_state_that_a_task_stores_is_its_end(
    records: list[RunRecord],
    make_task: MakeTask,
    stored: Any,
    meta: object,
    state: State,
    exception: str,
) -> None:
    def task(self: Any) -> None:
        self.update_state(state=stored, meta=meta)
        raise Ignore

    make_task(task, bind=True).apply()
    (record,) = records

    assert (record.state, record.exception) == (state, exception)


def test_state_that_is_stored_in_the_backend_itself_counts_as_well(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    def task(self: Any) -> None:
        backend: Any = CacheBackend(app=self.app, backend="memory://")
        backend.mark_as_failure(self.request.id, ValueError("wrong"))
        raise Ignore

    make_task(task, bind=True).apply()

    assert [(record.state, record.exception) for record in records] == [
        (State.FAILURE, "ValueError: wrong")
    ]


def test_state_that_is_stored_for_another_run_does_not_count(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    def task(self: Any) -> None:
        self.update_state(task_id="another", state=states.FAILURE)
        raise Ignore

    make_task(task, bind=True).apply()

    assert [record.state for record in records] == [State.IGNORED]


def test_state_that_is_stored_counts_less_than_the_end_that_celery_stores(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    def task(self: Any) -> int:
        self.update_state(state=states.FAILURE)
        return 7

    make_task(task, bind=True).apply()

    assert [record.state for record in records] == [State.SUCCESS]


@pytest.mark.parametrize(
    ("meta", "event", "attributes"),
    [
        ({"current": 7, "total": 10}, "7 of 10 done (70%)", {"done": 7, "total": 10}),
        (
            {"done": 2.5, "total": 10, "file": "a"},
            "2.5 of 10 done (25%)",
            {"done": 2.5, "total": 10},
        ),
        ({"current": 7}, "7 done", {"done": 7, "total": None}),
    ],
)
def test_progress_that_a_task_stores_in_celerys_way_is_on_record(
    records: list[RunRecord], make_task: MakeTask, meta: dict[str, Any], event: str, attributes: Any
) -> None:
    def task(self: Any) -> None:
        self.update_state(state="PROGRESS", meta={"current": 1, "total": 100})
        self.update_state(state="PROGRESS", meta=meta)

    make_task(task, bind=True).apply()
    (record,) = records
    (message,) = json.loads(record.messages)
    assert (message["event"], message["attributes"]) == (event, attributes)
    assert record.status == Status.SUCCESSFUL


@pytest.mark.parametrize(
    ("state", "meta"),
    [
        ("PROGRESS", {"current": "a.txt", "total": 10}),
        ("PROGRESS", {"current": True, "total": 10}),
        ("PROGRESS", {"current": 7, "total": "10"}),
        ("PROGRESS", {"step": 7}),
        ("PROGRESS", ["current"]),
        ("PROGRESS", {"current": float("nan")}),
        ("SUCCESS", {"current": 7, "total": 10}),
    ],
)
def test_metadata_that_says_nothing_of_progress_is_left_alone(
    records: list[RunRecord], make_task: MakeTask, state: str, meta: Any
) -> None:
    def task(self: Any) -> None:
        self.update_state(state=state, meta=meta)

    make_task(task, bind=True).apply()
    (record,) = records
    assert json.loads(record.messages) == []
