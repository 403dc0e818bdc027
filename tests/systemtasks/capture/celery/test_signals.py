"""Celery's signals end in the right record, here in eager mode; test_outcomes.py has workers."""

import json
import logging
from datetime import timedelta
from typing import Any

import pytest
from celery.app.task import Task

from systemtasks.capture.celery import options, signals
from systemtasks.capture.celery.options import AnyTask
from systemtasks.runs import recorder
from systemtasks.runs.journal_line import SENT_HEADER
from systemtasks.runs.records import RunRecord
from systemtasks.runs.values import moment
from systemtasks.states import State, Status
from tests import tasks
from tests.systemtasks.conftest import MakeTask


def run(task: AnyTask, *args: Any, **kwargs: Any) -> None:
    task.apply(args=args, kwargs=kwargs)


def events(record: RunRecord) -> list[str]:
    return [message["event"] for message in json.loads(record.messages)]


def test_success_is_recorded_with_its_arguments_and_messages(records: list[RunRecord]) -> None:
    run(tasks.succeed, 3, label="x")
    (record,) = records

    assert (record.name, record.state, record.status) == (
        "tests.succeed",
        State.SUCCESS,
        Status.SUCCESSFUL,
    )
    assert record.description == "Say hello."
    assert (record.args, record.kwargs) == ("[3]", '{"label":"x"}')
    assert events(record) == ["Hello 3", "Hello from another logger"]
    assert record.duration
    assert 0 < record.duration < 5


@pytest.mark.parametrize(
    ("task", "state", "status"),
    [
        (tasks.warn, State.SUCCESS, Status.WARNING),
        (tasks.fail, State.FAILURE, Status.ERROR),
        (tasks.ignore, State.IGNORED, Status.UNKNOWN),
        (tasks.reject, State.REJECTED, Status.WARNING),
    ],
)
def test_outcome_is_recorded(
    records: list[RunRecord], task: AnyTask, state: State, status: Status
) -> None:
    run(task)
    (record,) = records

    assert (record.state, record.status) == (state, status)


def test_failure_has_the_chained_traceback_without_celerys_frames(records: list[RunRecord]) -> None:
    run(tasks.fail)
    (record,) = records
    last = json.loads(record.messages)[-1]

    assert record.exception == "tests.tasks.ShopError: order 7: no such order"
    assert last["log_level"] == "error"
    assert "KeyError: 'order'" in last["attributes"]["exception"]["traceback"]
    assert "celery/app/trace.py" not in last["attributes"]["exception"]["traceback"]


def test_each_retry_is_an_attempt(records: list[RunRecord]) -> None:
    run(tasks.retry, 2)

    by_attempt = sorted(records, key=lambda record: record.attempt)
    assert [(record.attempt, record.state) for record in by_attempt] == [
        (1, State.RETRY),
        (2, State.RETRY),
        (3, State.SUCCESS),
    ]
    assert len({record.celery_id for record in records}) == 1
    assert events(by_attempt[0]) == ["Attempt 1", "Retry in 0.05 s: ConnectionError: away"]


def test_exhausted_retries_end_in_failure(records: list[RunRecord]) -> None:
    run(tasks.give_up)

    by_attempt = sorted(records, key=lambda record: record.attempt)
    assert [record.state for record in by_attempt] == [State.RETRY, State.FAILURE]
    assert by_attempt[-1].exception == "ConnectionError: still away"


def test_nested_run_keeps_its_messages_to_itself(records: list[RunRecord]) -> None:
    run(tasks.nest)
    inner, outer = records

    assert (inner.name, inner.celery_id) == ("tests.succeed", "inner")
    assert events(outer) == ["Before", "After"]


def test_task_says_when_its_row_expires(records: list[RunRecord]) -> None:
    run(tasks.never_expires)
    run(tasks.short_lived)
    never, short = records

    assert never.expires is None
    assert short.finish_timestamp
    assert short.expires == short.finish_timestamp + timedelta(hours=1)


@pytest.mark.parametrize("wrong", [90, "soon", timedelta(days=9_999_999), -timedelta(days=1)])
def test_wrong_expiry_gives_way_to_the_default_and_is_said(
    records: list[RunRecord],
    wrong: object,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(tasks.short_lived, "systemtasks_expires_after", wrong)
    options.task_info.cache_clear()
    run(tasks.short_lived)
    options.task_info.cache_clear()
    (record,) = records

    assert record.finish_timestamp
    assert record.expires == record.finish_timestamp + timedelta(days=30)
    assert "systemtasks_expires_after of tests.short_lived" in caplog.text


def test_recording_that_fails_does_not_reach_the_task(
    records: list[RunRecord], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(recorder, "start", broken)
    result = tasks.succeed.apply(args=(5,))

    assert result.get() == 5
    assert "Signal handler <function begin" in caplog.text


def test_sending_is_stamped(monkeypatch: pytest.MonkeyPatch) -> None:
    headers: dict[str, Any] = {}
    signals.stamp(headers=headers, body=None)

    assert moment(headers[SENT_HEADER]) is not None


@pytest.mark.parametrize("when", ["2026-11-24T12:00:00", "2026-11-24T12:00:00+00:00", 1795521600])
def test_moments_are_in_utc(when: object) -> None:
    read = moment(when)

    assert read is not None
    assert read.isoformat() == "2026-11-24T12:00:00+00:00"


def test_other_moments_are_none() -> None:
    assert moment(None) is None


def test_success_is_on_record_before_the_task_has_returned(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    noted: list[tuple[State, bool]] = []

    class Observing(Task):  # type: ignore[type-arg]  # Celery 5.6 has none
        def after_return(self, *_: Any) -> None:
            noted.extend((record.state, record.provisional) for record in records)

    make_task(lambda: None, base=Observing).apply()

    assert noted == [(State.SUCCESS, True)]
    assert [(record.state, record.lease) for record in records] == [(State.SUCCESS, None)]
    assert not records[0].provisional


def test_what_a_task_says_after_its_success_is_recorded_as_well(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    class Talking(Task):  # type: ignore[type-arg]  # Celery 5.6 has none
        def after_return(self, *_: Any) -> None:
            tasks.logger.warning("Afterwards")

    make_task(lambda: None, base=Talking).apply()

    last = records[-1]
    assert (last.state, last.status, last.lease) == (State.SUCCESS, Status.WARNING, None)
    assert not last.provisional
    assert events(last) == ["Afterwards"]


def test_logging_that_was_configured_anew_is_captured_again(records: list[RunRecord]) -> None:
    before = list(logging.root.handlers)
    try:
        logging.root.handlers.clear()
        run(tasks.succeed, 3)
    finally:
        logging.root.handlers[:] = before

    assert events(records[0]) == ["Hello 3", "Hello from another logger"]
